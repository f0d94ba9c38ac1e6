"""Every wrong request: one line, an exit code, nothing written."""

import re

import pytest
import torch
from typer.testing import CliRunner

from eqflow.cli import app

USAGE = [
    ([], "expected a preset such as wave, or --feed and --kill, got neither"),
    (["wav"], "got 'wav': did you mean wave"),
    (["nonsense!"], "expected a preset such as life, wave"),
    (["--feed", "0.03"], "got no --kill"),
    (["--sweep", "feed=0.01:0.02:3"], "got no --kill"),
    (["wave", "--steps", "-5"], "expected --steps from 0 up, got -5"),
    (["wave", "--steps", "many"], "many"),
    (["wave", "--steps", "100", "--every", "30"], "expected --every to divide --steps 100, got 30: 25 does"),
    (["wave", "--steps", "100", "--every", "0"], "got 0"),
    (["wave", "--steps", "100", "--every", "200"], "got 200: 100 does"),
    (["wave", "--samples", "0"], "expected --samples from 1"),
    (["wave", "--size", "2"], "expected --size from 3 up"),
    (["wave", "--size", "64x"], "expected --size as N or HxW, got '64x'"),
    (["wave", "--size", "8"], "take a larger grid or another start"),
    (["wave", "--dt", "2"], "dt = 2.0 is unstable"),
    (["wave", "--dt", "nan"], "expected --dt to be a finite number above 0, got nan"),
    (["wave", "--dx", "0"], "expected --dx to be a finite number above 0, got 0"),
    (["--feed", "nan", "--kill", "0.05"], "expected --feed to be a finite number from 0 up, got nan"),
    (["wave", "--diffusion-u", "-1"], "expected --diffusion-u"),
    (["wave", "--stencil", "7-point"], "expected --stencil to be 5-point or 9-point, got '7-point'"),
    (["wave", "--initial", "disks"], "got 'disks'; did you mean discs?"),
    (["wave", "--seed", "-1"], "expected --seed in [0, 2^64)"),
    (["wave", "--sweep", "feed=1"], "expected --sweep as NAME=FIRST:LAST:COUNT"),
    (["wave", "--sweep", "dt=0.1:1:4"], "got 'dt=0.1:1:4'"),
    (["wave", "--feed", "0.02", "--sweep", "feed=0.01:0.02:2"], "expected --feed or a --sweep of it, got both"),
    (["wave", "--sweep", "feed=0.01:0.02:9", "--samples", "8"], "cover the 9 points of the sweep, got 8"),
    (["wave", "--shard-size", "big"], "expected --shard-size"),
    (["wave", "--backend", "fortran"], "expected --backend to be auto, reference, native or triton, got 'fortran'"),
]
ELSE = [
    (["wave", "--device", "abacus"], "got 'abacus'"),
    (["wave", "--device", "meta"], "'meta'"),
]


def run(tmp_path, *words, out="new"):
    before = sorted(tmp_path.rglob("*"))
    result = CliRunner().invoke(app, ["generate", *words, "--out", str(tmp_path / out)])
    assert sorted(tmp_path.rglob("*")) == before, "something was written"
    assert result.stdout == "" and result.stderr.count("\n") == 1 and result.stderr.startswith("error: ")
    return result


@pytest.mark.parametrize(("words", "message"), USAGE, ids=[" ".join(words) or "nothing" for words, _ in USAGE])
def test_a_wrong_request_says_what_was_expected(tmp_path, words, message):
    result = run(tmp_path, *words)
    assert result.exit_code == 2 and message in result.stderr


@pytest.mark.parametrize(("words", "message"), ELSE, ids=[" ".join(words) for words, _ in ELSE])
def test_a_request_that_this_machine_cannot_serve(tmp_path, words, message):
    result = run(tmp_path, *words)
    assert result.exit_code in (1, 2) and message in result.stderr


@pytest.mark.skipif(torch.cuda.is_available(), reason="for machines without a GPU")
@pytest.mark.parametrize("words", [["--device", "cuda"], ["--device", "cuda:7"]])
def test_no_gpu(tmp_path, words):
    result = run(tmp_path, "wave", *words)
    assert result.exit_code == 1 and "expected a GPU" in result.stderr and "use --device cpu" in result.stderr


def test_a_backend_that_is_not_there_lists_every_reason(tmp_path, monkeypatch):
    monkeypatch.setattr("eqflow.ops._backend._triton_problem", lambda device: "it rains")
    result = run(tmp_path, "wave", "--backend", "triton")
    assert result.exit_code == 1 and "triton: it rains" in result.stderr and "reference: available" in result.stderr


def test_no_folder_at_all():
    result = CliRunner().invoke(app, ["generate", "wave"])
    assert result.exit_code == 2 and "expected --out FOLDER" in result.stderr


def test_a_file_where_the_folder_should_be(tmp_path):
    (tmp_path / "file").write_text("mine")
    for out in ("file", "file/inside"):
        result = run(tmp_path, "wave", out=out)
        assert result.exit_code == 1 and re.search(r"file is a file: choose another --out", result.stderr)


def test_a_folder_that_may_not_be_written(tmp_path, monkeypatch):
    monkeypatch.setattr("os.access", lambda *_: False)
    result = run(tmp_path, "wave")
    assert result.exit_code == 1 and "allowed to write" in result.stderr


def test_a_folder_of_other_files(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("all my work")
    for extra in ((), ("--overwrite",)):
        result = run(tmp_path, "wave", *extra, out="mine")
        assert result.exit_code == 1 and "thesis.tex" in result.stderr


def test_more_than_the_disk_holds(tmp_path):
    result = run(tmp_path, "wave", "--samples", "1000000000", "--every", "10")
    assert result.exit_code == 1 and "of free disk" in result.stderr
