"""What the README and the docstrings show runs as shown."""

import doctest
import importlib
import re
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parent.parent
FILES = [path.relative_to(ROOT) for path in sorted((ROOT / "eqflow").rglob("*.py")) if path.stem != "__main__"]
MODULES = [".".join(path.with_suffix("").parts).removesuffix(".__init__") for path in FILES]


@pytest.mark.parametrize("name", MODULES)
def test_docstrings(name):
    module = importlib.import_module(name)
    result = doctest.testmod(module, extraglobs={"torch": torch}, optionflags=doctest.ELLIPSIS)
    assert result.failed == 0


def test_readme(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    names = {}
    exec(compile("\n".join(code), "README.md", "exec"), names)
    assert names["film"].shape == (16, 100, 2, 128, 128)
    assert len(names["data"]) == 64
    assert names["path"].isfinite().all()
    assert len(names["found"].fits[0].names) == 6


def test_the_map_of_the_readme_names_every_room():
    readme = (ROOT / "README.md").read_text()
    rooms = [path.name for path in (ROOT / "eqflow").iterdir() if path.is_dir() and path.name != "__pycache__"]
    assert all(room in readme for room in rooms)
