"""bench.gpu runs on the CPU at tiny sizes: only a GPU machine shows what it measures, but not whether it starts."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def gpu(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "bench.gpu", "--dry-run", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)


def results(folder: Path) -> dict[str, dict]:
    return {result["stage"]: result for result in json.loads((folder / "gpu.json").read_text())["stages"]}


def check(folder: Path) -> None:
    for name, result in results(folder).items():
        assert result["outcome"] == "ok" or name in ("memcheck", "racecheck"), (folder / "gpu.log").read_text()
        assert not [row for row in result["rows"] if isinstance(row.get("error"), str)]
    assert sorted(path.name for path in folder.iterdir()) == ["gpu.json", "gpu.log", "gpu.md"]


def test_a_stage_leaves_three_files(tmp_path):
    done = gpu("--only", "bits", "--out", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    check(tmp_path)
    rows = results(tmp_path)["bits"]["rows"]
    assert rows and all(row["differing"] == 0 for row in rows if row["backend"] == "native")
    assert "## bits" in (tmp_path / "gpu.md").read_text()


def test_a_stage_that_is_stopped_does_not_stop_the_rest(tmp_path):
    done = gpu("--only", "environment", "bits", "--minutes", "0.001", "--out", str(tmp_path))
    assert done.returncode == 0
    assert {result["outcome"] for result in results(tmp_path).values()} == {"skipped: no time left"}


def test_unknown_stage(tmp_path):
    done = gpu("--only", "nonsense", "--out", str(tmp_path / "out"))
    assert done.returncode == 2
    assert "there is no stage nonsense; the stages are environment, bits" in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_all_stages(tmp_path):
    done = gpu("--out", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    check(tmp_path)
