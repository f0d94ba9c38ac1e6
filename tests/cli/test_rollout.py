import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from eqflow.cli import app
from eqflow.data.frames import read_frames
from eqflow.dynamics import SkewFlow, rollout, skew
from eqflow.score import Gaussian

SHORT = ("--steps", 20, "--every", 5, "--batch", 8)


def run(*words, code=0):
    result = CliRunner().invoke(app, ["rollout", *map(str, words)])
    assert result.exit_code == code, (result.stderr, result.exception)
    return result


def frames(folder):
    return torch.cat([read_frames(path) for path in sorted(folder.glob("data/train/*.hdf5"))])


@pytest.fixture
def cloud(tmp_path):
    points = numpy.random.default_rng(0).normal(size=(30, 2)).astype("float32")
    numpy.savetxt(tmp_path / "cloud.csv", points, delimiter=",", header="x,y", comments="")
    numpy.save(tmp_path / "cloud.npy", points)
    import h5py

    with h5py.File(tmp_path / "cloud.hdf5", "w") as file:
        file["positions"] = points
    return tmp_path


def test_the_command_is_the_library(tmp_path):
    words = "--covariance 2,0.5;0.5,0.7 --eta 0.4 --kernel rotation:1.3 --dt 0.05 --seed 3"
    result = run("gaussian", *SHORT, *words.split(), "--out", tmp_path / "run")
    assert re.search(r"8 samples, 20 steps, 5 frames, .* steps/s .*sample-steps/s", result.stdout)
    score = Gaussian(torch.zeros(2), torch.tensor([[2.0, 0.5], [0.5, 0.7]]))
    start = score.sample(8, seed=3)
    end = rollout(start, SkewFlow(score, skew.rotation(1.3), 0.4), 20, dt=0.05, seed=3).state
    found = frames(tmp_path / "run")
    assert found.shape == (8, 5, 2) and torch.equal(found[:, 0], start) and torch.equal(found[:, -1], end)


def test_the_same_command_goes_on_and_another_is_refused(tmp_path):
    words = ("mixture", *SHORT, "--out", tmp_path / "run")
    run(*words)
    before = frames(tmp_path / "run")
    assert "complete already" in run(*words).stdout
    result = run(*words, "--eta", 0.2, code=1)
    assert "eta is None there and 0.2 here" in result.stderr and result.stderr.count("\n") == 1
    assert torch.equal(frames(tmp_path / "run"), before)
    run(*words, "--eta", 0.2, "--overwrite")
    assert not torch.equal(frames(tmp_path / "run"), before)


def test_points_come_from_three_kinds_of_file(cloud):
    found = []
    for ending in ("csv", "npy", "hdf5"):
        run("points", cloud / f"cloud.{ending}", *SHORT, "--alpha", 0.9, "--out", cloud / ending)
        found.append(frames(cloud / ending))
    assert found[0].shape == (8, 5, 2) and torch.equal(found[1], found[2])
    torch.testing.assert_close(found[0], found[1], atol=1e-5, rtol=0)


def test_the_ground_truth_is_cut_at_fixed_places(tmp_path):
    words = ("gray-scott:wave", "--size", 24, "--batch", 2, "--steps", 240)
    run(*words, "--every", 40, "--out", tmp_path / "often")
    run(*words, "--out", tmp_path / "seldom")
    often, seldom = frames(tmp_path / "often"), frames(tmp_path / "seldom")
    assert often.shape == (2, 7, 2, 24, 24) and torch.equal(often[:, -1], seldom[:, -1])


@pytest.mark.parametrize("source", ["gaussian", "gray-scott:wave"])
@pytest.mark.parametrize("ending", ["png", "gif"])
def test_a_picture_or_a_film_at_the_end(tmp_path, source, ending):
    more = ("--size", 24) if source != "gaussian" else ()
    run(source, *more, *SHORT, "--out", tmp_path / "run", "--show", tmp_path / f"run.{ending}")
    with Image.open(tmp_path / f"run.{ending}") as image:
        assert image.size[0] > 200 and getattr(image, "n_frames", 1) == (5 if ending == "gif" else 1)


@pytest.mark.parametrize("kernel", ["none", "rotation:0.7", "random:3", "matrix:0,-1;1,0"])
def test_kernels(tmp_path, kernel):
    run("gaussian", *SHORT, "--kernel", kernel, "--out", tmp_path / "run")


def test_one_dimension_has_nothing_to_turn(tmp_path):
    run("gaussian", "--dimension", 1, *SHORT, "--out", tmp_path / "run", "--show", tmp_path / "one.png")
    assert frames(tmp_path / "run").shape == (8, 5, 1)


WRONG = {
    "no source": ([], "expected a source: gaussian, mixture, points FILE, gray-scott:PRESET, pretrained:NAME, or RUN"),
    "another source": (["lorenz"], "got 'lorenz'"),
    "points without a file": (["points"], "got no file"),
    "a file without points": (["gaussian", "x.csv"], "expected a file with the source points"),
    "no preset": (["gray-scott"], "expected a source"),
    "another preset": (["gray-scott:wav"], "did you mean wave"),
    "foreign option": (["gaussian", "--alpha", "0.9"], "expected no --alpha with gaussian"),
    "kernel of a simulator": (["gray-scott:wave", "--kernel", "none"], "expected no --kernel with gray-scott:wave"),
    "steps": (["gaussian", "--steps", "0"], "expected --steps from 1 up"),
    "every": (["gaussian", "--steps", "10", "--every", "3"], "expected --every to divide --steps 10, got 3"),
    "batch": (["gaussian", "--batch", "0"], "expected --batch from 1"),
    "dt": (["gaussian", "--dt", "nan"], "expected --dt to be a finite number above 0"),
    "unstable": (["gaussian", "--dt", "5"], "take --dt 0."),
    "eta": (["gaussian", "--eta", "-1"], "expected --eta to be a finite number from 0 up"),
    "integrator": (["gaussian", "--integrator", "leapfrog"], "expected integrator 'heun'"),
    "rk4": (["gaussian", "--integrator", "rk4"], "which makes no noise"),
    "kernel": (["gaussian", "--kernel", "spin:1"], "expected --kernel rotation:GAMMA, random:SEED"),
    "kernel number": (["gaussian", "--kernel", "rotation:fast"], "got 'rotation:fast'"),
    "kernel not skew": (["gaussian", "--kernel", "matrix:0,1;1,0"], "--kernel: expected a skew-symmetric kernel"),
    "kernel size": (["gaussian", "--kernel", "matrix:0"], "of 2 x 2 numbers"),
    "kernel radius": (["gaussian", "--kernel", "random:1:1"], "expected a --kernel of radius 0 for points"),
    "means": (["mixture", "--means", "1,2;3"], "expected --means as rows of numbers"),
    "covariance": (["gaussian", "--covariance", "1,2;2,1"], "positive definite covariance"),
    "film without frames": (["gaussian", "--show", "x.gif"], "expected --every with a film"),
    "its own dt": (["gray-scott:wave", "--dt", "0.5"], "or 1 as the system has"),
    "device": (["gaussian", "--device", "meta"], "'meta'"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_request_is_one_line_and_writes_nothing(tmp_path, name):
    words, message = WRONG[name]
    result = run(*words, "--out", tmp_path / "run", code=2)
    assert message in result.stderr and result.stderr.count("\n") == 1, result.stderr
    assert result.stdout == "" and not list(tmp_path.iterdir())


def test_files_that_hold_no_points(tmp_path):
    for name, content, message in (
        ("none.csv", None, "no such file"),
        ("words.csv", "a,b\nc,d\n", "line 2 has 'c' in column a"),
        ("nan.csv", "1,nan\n", "NaN or infinite"),
        ("broken.npy", "nonsense", "cannot read points"),
        ("broken.hdf5", "nonsense", "cannot read points"),
    ):
        if content is not None:
            (tmp_path / name).write_text(content)
        result = run("points", tmp_path / name, "--out", tmp_path / "run", code=1)
        assert message in result.stderr and result.stderr.count("\n") == 1, result.stderr


def test_a_folder_of_other_files(tmp_path):
    (tmp_path / "thesis.tex").write_text("all my work")
    assert "thesis.tex" in run("gaussian", *SHORT, "--out", tmp_path, code=1).stderr
    run("gaussian", *SHORT, "--out", tmp_path, "--overwrite", code=1)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_noisy_step_is_a_note(tmp_path):
    words = ("gaussian", *SHORT, "--dt", 0.1, "--integrator", "euler-maruyama", "--out", tmp_path / "run")
    result = run(*words)
    assert "note: with --dt 0.1 euler-maruyama" in result.stderr and "take --dt 0.009" in result.stderr


def start(folder, *words, **environment):
    command = [sys.executable, "-m", "eqflow", "rollout", *map(str, words), "--out", str(folder)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1", **environment}, **pipes)


def test_ranks_split_the_samples(tmp_path):
    run("gaussian", *SHORT, "--out", tmp_path / "one")
    ranks = [start(tmp_path / "two", "gaussian", *SHORT, RANK=str(r), WORLD_SIZE="2") for r in range(2)]
    said = [process.communicate(timeout=100) for process in ranks]
    assert [process.returncode for process in ranks] == [0, 0], said
    assert said[1] == ("", "") and len(list((tmp_path / "two").glob("data/train/*.hdf5"))) == 2
    assert torch.equal(frames(tmp_path / "two"), frames(tmp_path / "one"))


def test_an_interrupted_rollout_says_how_to_go_on_and_does(tmp_path):
    words = ("gaussian", "--steps", 8000, "--every", 100, "--batch", 4)
    process = start(tmp_path / "run", *words)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("run/data/train/.*.part")) and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    begin = time.monotonic()
    _, said = process.communicate(timeout=20)
    assert time.monotonic() - begin < 3 and process.returncode == 130, said
    line = said.splitlines()[-1]
    assert re.search(r"stopped at step [\d,]+ of 8,000: .* to go on, run `eqflow rollout gaussian", line)
    assert "Traceback" not in said and json.loads((tmp_path / "run/rollout.json").read_text())["steps"] == 8000
    run(*words, "--out", tmp_path / "run")
    run(*words, "--out", tmp_path / "whole")
    assert torch.equal(frames(tmp_path / "run"), frames(tmp_path / "whole"))
