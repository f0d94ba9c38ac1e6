"""What the README, the docstrings and examples/ show runs as shown."""

import doctest
import importlib
import re
import runpy
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
    assert names["pictures"].shape == (2, 2, 128, 128) and 0 < names["pictures"].mean() < 1
    assert len(names["found"].fits[0].names) == 6


LORENZ = {"x in x'", "y in x'", "x in y'", "y in y'", "x z in y'", "z in z'", "x y in z'"}
WAVE = {
    "1 in du/dt": 0.018,
    "u in du/dt": -0.018,
    "Δu in du/dt": 0.16,
    "v in dv/dt": -0.067,
    "u v^2 in dv/dt": 1.0,
    "Δv in dv/dt": 0.08,
}


@pytest.mark.slow
def test_lorenz_equations(capsys):
    found = runpy.run_path(str(ROOT / "examples" / "lorenz_equations.py"))["found"]
    assert set(found.names) == LORENZ
    assert found.p_value > 0.01
    assert capsys.readouterr().out == f"{found}\n"


@pytest.mark.slow
def test_pattern_equations(capsys):
    found = runpy.run_path(str(ROOT / "examples" / "pattern_equations.py"))["found"]
    written = capsys.readouterr().out
    assert written == f"{found.equations}\n"
    values = dict(zip(found.fits[0].names, found.fits[0].coefficients.tolist(), strict=True))
    assert values == pytest.approx(WAVE, rel=2e-3)


def test_the_examples_are_short_and_listed():
    listed = (ROOT / "examples" / "README.md").read_text()
    for path in (ROOT / "examples").glob("*.py"):
        assert len(path.read_text().splitlines()) < 20
        assert f"python examples/{path.name}" in listed


def test_the_map_of_the_readme_names_every_room():
    readme = (ROOT / "README.md").read_text()
    rooms = [path.name for path in (ROOT / "eqflow").iterdir() if path.is_dir() and path.name != "__pycache__"]
    assert all(room in readme for room in rooms)
