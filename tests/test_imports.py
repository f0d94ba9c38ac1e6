"""Who may import whom: the house of eqflow, as in CONTRIBUTING.md."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HOST_ONLY = ["scatter"]  # makes data, faster than any device uses them
SCIENCE = ("systems", "ops")
MAY_IMPORT = {
    "cli": ("systems", "ops", "data", "score", "dynamics", "fokker_planck", "metrics"),
    "data": SCIENCE,
    "score": SCIENCE,
    "dynamics": (*SCIENCE, "score", "metrics"),
    "fokker_planck": (*SCIENCE, "score"),
    "metrics": SCIENCE,
    "systems": ("ops",),
    "ops": (),
}


def imports(path):
    """Absolute module names that a file imports, `from package import name` as package.name."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("room", [room for room in MAY_IMPORT if (ROOT / "eqflow" / room).exists()])
def test_rooms_import_only_what_they_may(room):
    allowed = (room, *MAY_IMPORT[room])
    for path in (ROOT / "eqflow" / room).rglob("*.py"):
        for name in imports(path):
            if name.startswith("eqflow."):
                assert name.split(".")[1] in allowed, f"{path} imports {name}"


def test_every_room_is_in_the_law():
    rooms = {path.name for path in (ROOT / "eqflow").iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert rooms <= set(MAY_IMPORT)


def test_only_the_backend_module_loads_compiled_code_and_kernels():
    for path in (ROOT / "eqflow").rglob("*.py"):
        if path.name != "_backend.py":
            assert not re.search(r"eqflow\.(_C|kernels)\b.*import|import.*eqflow\.(_C|kernels)\b", path.read_text()), (
                path
            )


def test_kernels_know_torch_triton_and_the_normals_only():
    for path in (ROOT / "kernels").glob("*.py"):
        foreign = {name for name in imports(path) if not name.startswith("eqflow.kernels.normal.")}
        assert {name.split(".")[0] for name in foreign} <= {"__future__", "collections", "torch", "triton"}, path
    for path in [*(ROOT / "kernels").glob("*.c*"), *(ROOT / "csrc").rglob("*.[ch]*")]:
        for header in re.findall(r'#include "(.+?)"', path.read_text()):
            assert (ROOT / "csrc" / header).exists(), f"{path} includes {header}"
        assert not re.search(r"#include <(torch|ATen|c10)/", path.read_text()), path


def test_every_operator_has_its_whole_row():
    for path in (ROOT / "kernels").glob("*.cpp"):
        name = path.stem
        cells = [f"eqflow/ops/{name}.py", f"tests/ops/test_{name}.py"]
        if name not in HOST_ONLY:
            cells += [f"kernels/{name}.cu", f"kernels/{name}.py"]
        missing = [cell for cell in [*cells, f"bench/bench_{name}.py"] if not (ROOT / cell).exists()]
        assert not missing, f"the row {name} lacks {missing}"
