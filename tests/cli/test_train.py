"""`eqflow train`, and `eqflow rollout` of what it made."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from typer.testing import CliRunner

from eqflow.cli import app
from eqflow.data.frames import read_frames
from eqflow.score import read_score

SIMULATED = ("--system", "gray-scott:wave", "--size", 32, "--simulated-steps", 300, "--held-out", 4)
SHORT = ("--steps", 12, "--width", 8, "--dilations", "1,1")


@pytest.fixture
def plain(monkeypatch):
    """A white pixel for a picture: drawing takes longer than these trainings."""
    monkeypatch.setattr("eqflow.cli._train_picture.draw", lambda out, *_: Image.new("L", (1, 1), 255).save(out))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A finished score of simulated fields."""
    path = tmp_path_factory.mktemp("scores") / "wave-score"
    run("train", *SIMULATED, *SHORT, "--out", path)
    return path


@pytest.fixture(scope="module")
def fields(tmp_path_factory):
    """Three channels that are no concentrations, on a grid that is no square."""
    path = tmp_path_factory.mktemp("fields") / "weather.npy"
    random = numpy.random.default_rng(0).normal(size=(20, 3, 12, 16)).cumsum(3)
    numpy.save(path, (random * [[[[2.0]], [[30.0]], [[0.1]]]] + 100).astype("float32"))
    return path


def run(command, *words, code=0):
    result = CliRunner().invoke(app, [command, *map(str, words)])
    assert result.exit_code == code, (result.stdout, result.stderr, result.exception)
    if code:
        assert result.stdout == "" and result.stderr.count("\n") == 1 and result.stderr.startswith("error: ")
    return result


def test_a_score_of_simulated_fields(folder):
    report = json.loads((folder / "report.json").read_text())
    assert sorted(path.name for path in folder.iterdir()) == [
        "report.json", "score.png", "score.safetensors", "train.json",
    ]  # fmt: skip
    with Image.open(folder / "score.png") as picture:
        assert picture.size[0] > 1000
    assert report["system"]["parameters"]["feed"] == 0.018 and report["samples"] is None
    assert set(report["denoising"]) >= {"error", "wiener", "trivial", "standard_error"}
    assert max(report["equivariance"].values()) < 1e-5
    stored = read_score(folder / "score.safetensors")
    assert (stored.name, stored.channels, stored.size, stored.steps) == ("wave", ("u", "v"), (32, 32), 300)
    data = stored.offset + stored.factor * stored.fields(range(2))
    assert data.min() >= 0 and data.max() <= 1
    assert stored.fields(range(1), size=(40, 48)).shape == (1, 2, 40, 48)
    shown = run("info", folder).stdout
    assert "complete, a score" in shown and "Wiener" in shown and "gray-scott:wave 32 x 32" in shown


def test_the_same_command_finds_it_done_and_another_is_refused(folder, plain):
    before = (folder / "score.safetensors").stat().st_mtime_ns
    again = run("train", *SIMULATED, *SHORT, "--out", folder)
    assert "was complete already" in again.stdout
    assert (folder / "score.safetensors").stat().st_mtime_ns == before
    result = run("train", *SIMULATED, *SHORT, "--seed", 1, "--out", folder, code=1)
    assert "seed is 0 there and 1 here: choose another --out" in result.stderr


def test_a_score_of_any_fields_keeps_their_units(fields, here, plain):
    assert "next: eqflow rollout weather-score" in run("train", fields, *SHORT, "--json", "facts.json").stdout
    stored = read_score(here / "weather-score" / "score.safetensors")
    assert json.loads((here / "facts.json").read_text())["symmetries"] == "flips"
    assert stored.system is None and len(stored.starts) == 2
    values = torch.from_numpy(numpy.load(fields))
    kept = stored.offset + stored.factor * stored.fields(range(3))
    assert all((values - field).abs().amax((1, 2, 3)).min() < 1e-3 for field in kept)
    run("rollout", "weather-score", "--batch", 3, "--steps", 4, "--every", 2, "--kernel", "rotation:1", "--out", "path")
    frames = read_frames(here / "path" / "data" / "train" / "weather_00000.hdf5")
    assert frames.shape == (3, 3, 3, 12, 16) and 50 < frames[:, :, 0].mean() < 200
    result = run("rollout", "weather-score", "--size", 32, "--out", "other", code=2)
    assert "no system is known" in result.stderr


def test_a_dataset_brings_its_system(here, plain):
    run("generate", "maze", "--samples", 12, "--size", 32, "--steps", 200, "--keep-dead", "--out", "maze")
    run("train", "maze", *SHORT, "--held-out", 3)
    stored = read_score(here / "maze-score" / "score.safetensors")
    assert stored.system.feed == 0.029 and stored.steps == 200 and stored.offset.flatten().tolist() == [0.5, 0.5]


@pytest.mark.parametrize(
    "words", [(), ("--anchor", 2), ("--size", 24, "--precision", "bfloat16", "--clip", "--eta", 0.3)]
)
def test_a_rollout_keeps_clean_fields_and_goes_on(folder, here, words):
    command = ("rollout", folder, "--batch", 2, "--steps", 6, "--every", 3, "--out", "path", *words)
    assert "2 samples, 6 steps, 3 frames" in run(*command).stdout
    frames = read_frames(here / "path" / "data" / "train" / "wave_00000.hdf5")
    assert frames.shape[:3] == (2, 3, 2) and frames.isfinite().all()
    assert "was complete already" in run(*command).stdout
    assert "the score of wave, alpha 0.94478" in run("info", "path").stdout
    other = list(command)
    other[other.index("--steps") + 1] = 9
    result = run(*other, code=1)
    assert "choose another --out" in result.stderr


def test_the_unet_trains_and_says_what_grid_it_needs(here, plain):
    pytest.importorskip("diffusers", reason="the network unet is the extra eqflow[unet]")
    result = run("train", "--system", "gray-scott:wave", "--size", 30, "--network", "unet", code=2)
    assert "sides divisible by 4" in result.stderr and "local" in result.stderr


REFUSED = {
    "neither": ([], "expected a dataset, or --system gray-scott:PRESET, got neither"),
    "both": (["x", "--system", "gray-scott:wave"], "got both"),
    "no system": (["--system", "lorenz"], "expected --system gray-scott:PRESET"),
    "near": (["--system", "gray-scott:wawe"], "did you mean"),
    "size of data": (["x", "--size", 32], "expected no --size with x"),
    "samples of a system": (["--system", "gray-scott:wave", "--samples", 3], "expected no --samples"),
    "steps": (["--system", "gray-scott:wave", "--steps", 0], "expected --steps from 1 up, got 0"),
    "alpha": (["--system", "gray-scott:wave", "--alpha", 1.5], "expected alpha in (0, 1)"),
    "alpha word": (["--system", "gray-scott:wave", "--alpha", "none"], "expected --alpha as a number in"),
    "dilations": (["--system", "gray-scott:wave", "--dilations", "1,x"], "expected --dilations as whole numbers"),
    "network": (["--system", "gray-scott:wave", "--network", "vit"], "expected --network to be local or unet"),
    "small": (["--system", "gray-scott:wave", "--size", 4], "--size"),
}


@pytest.mark.parametrize("words, expected", REFUSED.values(), ids=REFUSED)
def test_a_wrong_request_is_one_line_and_writes_nothing(words, expected, here):
    assert expected in run("train", *words, code=2).stderr
    assert not list(here.iterdir())


def test_data_that_cannot_be_learned_from_are_refused(here):
    def refused(name, values, *words):
        numpy.save(name, values)
        return run("train", name, *words, "--out", "score", code=1).stderr

    random = numpy.random.default_rng(0).normal(size=(6, 2, 8, 8)).astype("float32")
    assert "two fields or more to learn from, got 1" in refused("one.npy", random[:1])
    broken = random.copy()
    broken[2, 0, 3, 3] = numpy.nan
    assert "holds NaN" in refused("broken.npy", broken)
    flat = random.copy()
    flat[:, 1] = 2
    assert "constant" in refused("flat.npy", flat)
    assert "no such file" in run("train", "nowhere", code=1).stderr
    numpy.save("wide.npy", numpy.repeat(random, 2, 3))
    assert "take flips" in run("train", "wide.npy", "--symmetries", "square", code=2).stderr
    assert not (here / "score").exists()


def test_a_run_that_cannot_be_rolled_out_is_refused(folder, here):
    empty = here / "empty"
    empty.mkdir()
    assert "it has no fit.json or train.json" in run("rollout", empty, "--out", "a", code=1).stderr
    (empty / "train.json").write_text("{}")
    assert "expected a finished score" in run("rollout", empty, "--out", "a", code=1).stderr
    assert "expected a pretrained score" in run("rollout", "pretrained:moon", "--out", "a", code=1).stderr
    assert "expected --anchor" in run("rollout", folder, "--anchor", 0, "--out", "a", code=2).stderr
    assert "expected alpha=0.94478" in run("rollout", folder, "--alpha", 0.5, "--out", "a", code=2).stderr
    for name in ("report.json", "score.png", "train.json"):
        (empty / name).write_bytes((folder / name).read_bytes())
    save_file({"a": torch.zeros(1)}, empty / "score.safetensors", {"eqflow": json.dumps({"format": 99})})
    assert "of format 1 in" in run("rollout", empty, "--out", "a", code=1).stderr
    (empty / "score.safetensors").write_bytes(b"nothing")
    assert "is damaged" in run("rollout", empty, "--out", "a", code=1).stderr


@pytest.mark.slow
def test_killed_at_random_moments_it_ends_with_the_same_bytes(here):
    """The promise of resuming: five kills, the same file."""
    command = [sys.executable, "-P", "-m", "eqflow", "train", *map(str, SIMULATED), "--steps", "400", "--width", "8"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([*command, "--out", "whole"], check=True, env=environment, capture_output=True)
    random = numpy.random.default_rng(1)
    for _ in range(5):
        process = subprocess.Popen([*command, "--out", "killed"], env=environment, stderr=subprocess.DEVNULL)
        time.sleep(random.uniform(3, 9))
        process.send_signal(signal.SIGKILL)
        process.wait()
    subprocess.run([*command, "--out", "killed"], check=True, env=environment, capture_output=True)
    whole, killed = (json.loads((here / name / "report.json").read_text()) for name in ("whole", "killed"))
    assert whole["history"] == killed["history"]
    first, second = ((here / name / "score.safetensors").read_bytes() for name in ("whole", "killed"))
    assert first == second


@pytest.mark.slow
def test_two_ranks_write_one_score(here):
    command = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "eqflow", "train", *map(str, SIMULATED)]
    words = [*map(str, SHORT), "--out", "two", "--precision", "float32"]
    subprocess.run([sys.executable, "-P", *command, *words], check=True, capture_output=True, timeout=300)
    run("train", *SIMULATED, *SHORT, "--out", "one", "--precision", "float32")
    one, two = (json.loads((here / name / "report.json").read_text()) for name in ("one", "two"))
    assert two["history"][-1][2] == pytest.approx(one["history"][-1][2], rel=1e-3)
