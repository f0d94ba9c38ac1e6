import importlib.util
import sys
from pathlib import Path

# The benches stand beside the package and are not installed. The checkout itself must not be on the path: its eqflow/
# has no compiled module.
_FOLDER = Path(__file__).parent.parent.parent / "bench"
_spec = importlib.util.spec_from_file_location(
    "bench", _FOLDER / "__init__.py", submodule_search_locations=[str(_FOLDER)]
)
sys.modules["bench"] = importlib.util.module_from_spec(_spec)
