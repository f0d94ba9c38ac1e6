import json
import math
import os
import re
import signal
import subprocess
import sys
import time

import h5py
import numpy
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from eqflow.cli import _fit_kept, _fit_report, app
from eqflow.data.frames import read_frames
from eqflow.data.lock import Lock

SHORT = ("--pool", 2000, "--degree", 3, "--hidden", "16,16", "--steps", 20)


@pytest.fixture
def plain(monkeypatch):
    """A white pixel for a picture: drawing takes longer than these fits."""
    monkeypatch.setattr("eqflow.cli._fit_picture.draw", lambda out, *_: Image.new("L", (1, 1), 255).save(out))


def run(command, *words, code=0):
    result = CliRunner().invoke(app, [command, *map(str, words)])
    assert result.exit_code == code, (result.stdout, result.stderr, result.exception)
    if code:
        assert result.stdout == "" and result.stderr.count("\n") == 1 and result.stderr.startswith("error: ")
    return result


def ring(points=1500, seed=0):
    random = numpy.random.default_rng(seed)
    angle, radius = random.uniform(0, 2 * math.pi, points), 1 + 0.1 * random.normal(size=points)
    return numpy.stack([30 * radius * numpy.cos(angle) + 5, radius * numpy.sin(angle) - 2], 1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A finished fit of a ring, wide and off the centre."""
    place = tmp_path_factory.mktemp("fit")
    numpy.savetxt(place / "ring.csv", ring(), delimiter=",", header="x,y", comments="")
    result = run("fit", place / "ring.csv", *SHORT, "--out", place / "flow")
    (place / "said.txt").write_text(result.stdout)
    return place


def test_a_ring_turns(folder):
    kept = _fit_kept.load(folder / "flow" / "flow.safetensors")
    radius, centre = torch.tensor([30.0, 1.0]), torch.tensor([5.0, -2.0])
    points = (torch.as_tensor(ring(500, seed=1)).float() - kept.mean.float()) / kept.sd.float()
    away = (points * kept.sd.float() + kept.mean.float() - centre) / radius
    tangent = torch.stack([-away[:, 1], away[:, 0]], 1) * radius / kept.sd.float()
    found = kept.modes[0].velocity(points)
    cosine = (found * tangent).sum() / (found.norm() * tangent.norm())
    assert cosine > 0.99


def test_everything_is_in_the_folder(folder):
    assert {path.name for path in (folder / "flow").iterdir()} == {
        "fit.json", "flow.safetensors", "report.json", "flow.png",
    }  # fmt: skip
    report = json.loads((folder / "flow/report.json").read_text())
    numpy.testing.assert_allclose(report["mean"], ring().mean(0))
    numpy.testing.assert_allclose(report["sd"], ring().std(0, ddof=1))
    assert report["made"]["command"].startswith("eqflow") and report["made"]["torch"] == torch.__version__
    assert report["coordinates"] == ["x", "y"] and report["points"] == 1500
    with Image.open(folder / "flow/flow.png") as image:
        assert min(image.size) > 500


def test_the_report_says_what_was_found_and_how_that_is_known(folder):
    said = (folder / "said.txt").read_text()
    for words in (
        "1,500 of 2 coordinates: x, y", "exact for these points under noise", "Stein's identities hold to",
        "20 coefficients of polynomials of degree 3 and 2 networks", "objective = residual + 0.25 strain",
        "network 2", "mode 5", "|cos| 1", "unique?", "the next mode costs", "two halves of the points",
        "2 networks from different starts", "next: eqflow rollout",
    ):  # fmt: skip
        assert words in said, words


def test_the_same_command_finds_it_complete_and_another_is_refused(folder):
    words = ("fit", folder / "ring.csv", *SHORT, "--out", folder / "flow")
    before = (folder / "flow/flow.safetensors").stat().st_mtime_ns
    assert "was complete already" in run(*words).stdout
    result = run(*words, "--alpha", 0.9, code=1)
    assert "alpha is 0.95 there and 0.9 here" in result.stderr and "--overwrite" in result.stderr
    numpy.savetxt("ring.csv", ring(seed=3), delimiter=",", header="x,y", comments="")
    assert "points is float64[1500,2]" in run("fit", "ring.csv", *words[2:], code=1).stderr
    assert (folder / "flow/flow.safetensors").stat().st_mtime_ns == before


def test_the_same_points_from_other_files_give_the_same_bytes(folder, here, plain):
    numpy.save("cloud.npy", numpy.loadtxt(folder / "ring.csv", delimiter=",", skiprows=1))
    with h5py.File("cloud.h5", "w") as file:
        file["a"], file["b"] = numpy.load("cloud.npy"), numpy.ones((2, 2))
    for words in (("cloud.npy",), ("cloud.h5", "--dataset", "a")):
        run("fit", *words, "--method", "closed-form", "--pool", 2000, "--degree", 3, "--out", words[0][-2:])
    one, two = ((here / name / "flow.safetensors").read_bytes() for name in ("py", "h5"))
    assert one == two


@pytest.mark.parametrize("method", ["closed-form", "learned"])
def test_one_method_alone(here, plain, method):
    words = SHORT if method == "learned" else SHORT[:4]
    said = run("fit", "ring", "--samples", 1000, "--method", method, *words, "--show", "ring.png").stdout
    assert "wrote ring.png" in said and ("network 1" in said) == (method == "learned") == ("mode 1" not in said)
    report = json.loads((here / "ring-flow/report.json").read_text())
    assert (report["closed_form"] is None) == (method == "learned") == (report["learned"] is not None)
    assert ("unique?   Unknown" in said) == (method == "learned")


def test_overwrite_replaces_a_fit_and_nothing_else(here, plain):
    words = (
        "fit",
        "ring",
        "--samples",
        1000,
        "--method",
        "closed-form",
        "--pool",
        1000,
        "--degree",
        1,
        "--out",
        "flow",
    )
    run(*words)
    (here / "flow/notes.txt").write_text("mine")
    run(*words, "--alpha", 0.9, "--overwrite")
    assert json.loads((here / "flow/fit.json").read_text())["alpha"] == 0.9
    assert (here / "flow/notes.txt").read_text() == "mine"
    (here / "flow/fit.json").unlink()
    assert "found flow.png: choose --out" in run(*words, "--overwrite", code=1).stderr


def test_the_paper_mode_is_what_it_says(here, plain):
    run("fit", "ring", "--samples", 1000, "--paper", "--hidden", "8", "--steps", 3, "--pool", 1000, "--degree", 2)
    asked = json.loads((here / "ring-flow/fit.json").read_text())
    found = {name: asked[name] for name in ("objective", "norm", "probes", "frequencies", "equivariance")}
    assert found == {
        "objective": "sampled", "norm": "per-coordinate", "probes": 1, "frequencies": 5, "equivariance": "none",
    }  # fmt: skip


def test_a_trained_score_and_more_coordinates(here, plain):
    values = numpy.random.default_rng(0).normal(size=(400, 9)) @ numpy.random.default_rng(1).normal(size=(9, 9))
    numpy.save("nine.npy", values)
    more = ("--score-steps", 20, "--pool", 1000, "--degree", 1, "--alpha", 0.8)
    run("fit", "nine.npy", "--method", "closed-form", *more)
    kept = _fit_kept.load(here / "nine-flow/flow.safetensors")
    assert kept.score(torch.zeros(2, 9)).isfinite().all() and kept.about["score"] == "net"
    run("rollout", "nine-flow", "--steps", 4, "--batch", 2, "--eta", 0.1, "--out", "path")


def test_four_coordinates_are_drawn_in_pairs(here):
    numpy.save("four.npy", numpy.random.default_rng(0).normal(size=(400, 4)))
    more = ("--equivariance", "none", "--pool", 1000, "--degree", 1)
    run("fit", "four.npy", "--method", "closed-form", *more, "--show", "four.png")
    with Image.open("four.png") as image:
        assert min(image.size) > 500


def test_a_fit_is_rolled_out_in_the_units_of_its_points(folder, here):
    words = ("rollout", folder / "flow", "--steps", 40, "--every", 10, "--batch", 50, "--flow", "mode", "--dt", 0.05)
    run(*words, "--out", "path", "--show", "path.png")
    frames = read_frames(here / "path/data/train/ring_00000.hdf5").double()
    assert frames.shape == (50, 5, 2)
    away = (frames - torch.tensor([5.0, -2.0])) / torch.tensor([30.0, 1.0])
    radius, angle = away.norm(dim=2), torch.atan2(away[..., 1], away[..., 0])
    assert (radius.mean(0) - 1).abs().max() < 0.15  # the ring is kept
    turned = torch.remainder(angle[:, 1:] - angle[:, :-1], 2 * math.pi)
    assert turned.min() > 0.2 and turned.max() < 1.5  # and turns one way
    again = run(*words[:1], os.path.relpath(folder / "flow"), *words[2:], "--out", "path")
    assert "complete already" in again.stdout
    assert "eta is None there and 0.2 here" in run(*words, "--eta", 0.2, "--out", "path", code=1).stderr


def test_noise_follows_the_score(folder, here):
    run("rollout", folder / "flow", "--steps", 200, "--batch", 200, "--eta", 0.5, "--out", "noisy")
    frames = read_frames(here / "noisy/data/train/ring_00000.hdf5").double()
    assert (frames[:, -1].std(0) / torch.as_tensor(ring().std(0)) - 1).abs().max() < 0.2
    assert not torch.equal(frames[:, 0], frames[:, -1])


def test_info_and_show_know_fits_and_rollouts(folder, here):
    run("rollout", folder / "flow", "--steps", 20, "--every", 5, "--batch", 4, "--out", "path")
    fit, rollout = run("info", folder / "flow").stdout, run("info", "path").stdout
    assert "complete, a fit" in fit and "mode 1" in fit and "command" in fit
    assert "complete, a rollout" in rollout and "1 of 1" in rollout and "5 frames" in rollout
    assert json.loads(run("info", folder / "flow", "--json").stdout)["report"]["points"] == 1500
    assert json.loads(run("info", "path", "--json").stdout)["complete"] is True
    for words in ((folder / "flow",), ("path",), ("path", "--out", "path.gif")):
        run("show", *words)
    assert {"flow.png", "path.png", "path.gif"} <= {path.name for path in here.iterdir()}
    assert "end in .png for a fit" in run("show", folder / "flow", "--out", "a.gif", code=2).stderr
    (here / "path/data/train/ring_00000.hdf5").unlink()
    result = CliRunner().invoke(app, ["info", "path"])
    assert result.exit_code == 1 and "not complete" in result.stdout and "again goes on" in result.stdout


WRONG = {
    "no points": ([], 2, "expected POINTS"),
    "another system": (["lorentz"], 2, "did you mean lorenz"),
    "no file": (["none.csv"], 1, "no such file"),
    "another file": (["points.xlsx"], 1, "expected points in a .csv"),
    "alpha": (["ring", "--alpha", "1"], 2, "expected --alpha between 0 and 1"),
    "method": (["ring", "--method", "magic"], 2, "expected --method to be closed-form, learned or both"),
    "score": (["ring", "--score", "exact"], 2, "expected --score to be kernel or net"),
    "objective": (["ring", "--objective", "expect"], 2, "did you mean expected"),
    "one probe": (["ring", "--objective", "product", "--probes", "1"], 2, "expected --probes from 2 up"),
    "hidden": (["ring", "--hidden", "64x64"], 2, "expected --hidden as 1 to 4 widths"),
    "odd hidden": (["ring", "--hidden", "7"], 2, "even ones, or --equivariance none"),
    "pool": (["ring", "--pool", "10"], 2, "expected --pool from 1,000 up"),
    "pool and degree": (["ring", "--pool", "1000", "--degree", "30"], 2, "expected --pool from 1,984 up"),
    "degree": (["lorenz", "--samples", "200", "--degree", "40"], 2, "take --degree 5, or --method learned"),
    "rate": (["ring", "--rate", "nan"], 2, "expected --rate to be a finite number above 0"),
    "seed": (["ring", "--seed", "-1"], 2, "expected --seed in [0, 2^64)"),
    "show": (["ring", "--show", "ring.gif"], 2, "expected --show to end in .png"),
    "few samples": (["ring", "--samples", "50"], 1, "expected 100 different points or more, got 50"),
    "columns of a system": (["ring", "--columns", "x"], 2, "expected no --columns with ring"),
    "device": (["ring", "--device", "meta"], 2, "'meta'"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_request_is_one_line_and_writes_nothing(here, name):
    words, code, message = WRONG[name]
    assert message in run("fit", *words, code=code).stderr
    assert not list(here.iterdir())


def test_points_that_cannot_be_fitted_are_one_line_with_the_option_to_take(here):
    good = ring(200)
    files = {
        "constant": (numpy.c_[good, numpy.ones(200)], "--columns x1,x2"),
        "nan": (numpy.where(numpy.arange(400).reshape(200, 2) == 35, numpy.nan, good), "row 18 in x2"),
        "twice": (numpy.r_[good, good], "--repeats drop"),
        "line": (good[:, :1], "2 coordinates or more"),
        "wide": (numpy.random.default_rng(0).normal(size=(200, 20)), "at most 16 coordinates"),
        "fields": (numpy.ones((200, 1, 4, 4)), "got fields"),
    }
    for name, (values, message) in files.items():
        numpy.save(f"{name}.npy", values)
        code = 2 if name == "wide" else 1
        assert message in run("fit", f"{name}.npy", code=code).stderr
    more = ("--method", "closed-form", "--degree", 1, "--score", "kernel")
    assert "take --score net" in run("fit", "wide.npy", *more, code=2).stderr
    with h5py.File("two.h5", "w") as file:
        file["a"], file["b"] = good, good
    assert "--dataset a" in run("fit", "two.h5", code=1).stderr
    assert "holds a [200, 2], b [200, 2]" in run("fit", "two.h5", "--dataset", "c", code=1).stderr
    assert {path.suffix for path in here.iterdir()} == {".npy", ".h5"}


def test_a_folder_of_something_else_is_left_alone(here):
    words = ("fit", "ring", "--samples", 1000, "--overwrite", "--out", "path")
    run("rollout", "gaussian", "--steps", 2, "--batch", 2, "--out", "path")
    before = sorted(here.rglob("*"))
    assert "to hold a fit, found" in run(*words, code=1).stderr
    assert sorted(here.rglob("*")) == before


def test_two_processes_do_not_fit_in_one_folder(here):
    (here / "flow/.fit").mkdir(parents=True)
    lock = Lock.take(here / "flow/.fit/lock")
    words = ("fit", "ring", "--samples", 1000, "--out", "flow")
    assert "another process fits in flow" in run(*words, code=1).stderr
    lock.release()


NOT_A_RUN = {
    "a folder": ("empty", "has no fit.json"),
    "an unfinished fit": ("begun", "is not finished"),
    "another flow": ("flow", "expected --flow network:1 to network:2 or mode:1 to mode:5, got 'mode:9'"),
    "a kernel": ("kernel", "expected no --kernel"),
}


@pytest.mark.parametrize("name", NOT_A_RUN)
def test_what_cannot_be_rolled_out(folder, here, name):
    kind, message = NOT_A_RUN[name]
    place = here / "run"
    if kind in ("empty", "begun"):
        place.mkdir()
        if kind == "begun":
            (place / "fit.json").write_text("{}")
    else:
        place = folder / "flow"
    more = {"flow": ("--flow", "mode:9"), "kernel": ("--kernel", "none")}.get(kind, ())
    result = run("rollout", place, *more, "--out", "path", code=1 if kind in ("empty", "begun") else 2)
    assert message in result.stderr and not (here / "path").exists()


def report(**changes):
    """What a fit with a clear answer finds."""
    held = {name: [value] * 2 for name, value in (("objective", 0.4), ("residual", 0.1), ("leak", 0.01))}
    closed = {"objective": [0.4, 1.1, 1.5], "near": 1, "halves": 0.99, "held_out": held}
    closed["all_fields"] = {"objective": [0.4, 1.1, 1.5], "near": 1}
    learned = {"models": 2, "agreement": 0.99, "cosines": [[0.99, 0, 0]] * 2, "held_out": held}
    found = {"closed_form": closed, "learned": learned, "chosen": ["mode", 1]}
    for path, value in changes.items():
        *way, last = path.split("__")
        inner = found
        for word in way:
            inner = inner[word]
        inner[last] = value
    return found


@pytest.mark.parametrize(
    ("changes", "answer", "words"),
    [
        ({}, "yes", "the next mode costs 2.75 times as much (1.1 against 0.4)"),
        ({"closed_form__all_fields": {"objective": [0.3, 0.4], "near": 2}}, "symmetry", "it is an assumption"),
        ({"closed_form__near": 2, "closed_form__objective": [0.3, 0.4, 1.0]}, "no", "(0.3, 0.4, the next 1)"),
        ({"closed_form__halves": 0.5}, "unsettled", "more points would help"),
        ({"learned__agreement": 0.5}, "unsettled", "take more --steps"),
        ({"learned__cosines": [[0.5, 0, 0]] * 2}, "unsettled", "raise --degree or --steps"),
        ({"closed_form__held_out": {"leak": [0.5]}}, "none", "leaks 50%"),
        ({"closed_form": None, "chosen": ["network", 1]}, "unknown", "take --method both"),
        ({"learned__agreement": None}, "yes", "take --models 2 or more"),
        ({"learned": None}, "yes", "two halves of the points give the same field"),
    ],
)
def test_the_verdict_follows_from_the_evidence(changes, answer, words):
    found = _fit_report.verdict(report(**changes))
    assert found["answer"] == answer and any(words in line for line in found["because"]), found


DRIVER = """
from eqflow.cli import _fit_stages, main
_fit_stages._SECONDS = 0.0  # a checkpoint at every occasion
main()
"""
LONG = ("ring", "--samples", 1000, "--pool", 2000, "--degree", 3, "--hidden", "16,16")


def start(*words):
    command = [sys.executable, "-c", DRIVER, "fit", *map(str, words)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, **pipes)


def wait_for_change(path, before, seconds=120):
    """Until the file is there, or newer than it was; when it was changed."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if path.exists() and (now := path.stat().st_mtime_ns) != before:
            return now
        time.sleep(0.02)
    raise AssertionError(f"{path} did not change")


def test_an_interrupted_fit_says_how_to_go_on(here):
    process = start(*LONG, "--steps", 10**6)
    first = wait_for_change(here / "ring-flow/.fit/flow.pt", None)
    wait_for_change(here / "ring-flow/.fit/flow.pt", first)  # progress follows each checkpoint
    process.send_signal(signal.SIGINT)
    begin = time.monotonic()
    _, said = process.communicate(timeout=20)
    assert time.monotonic() - begin < 3 and process.returncode == 130, said
    line = said.splitlines()[-1]
    assert re.search(r"stopped in learned flow at [\d,]+ of 1,000,000 steps: .*; to go on, run `eqflow fit ring", line)
    assert "Traceback" not in said and not (here / "ring-flow/report.json").exists()


@pytest.mark.slow
def test_a_killed_fit_goes_on_to_the_same_bytes(here):
    changed = None
    for file in ("pool.pt", "flow.pt", "flow.pt"):
        process = start(*LONG, "--steps", 1000, "--out", "killed")
        changed = wait_for_change(here / "killed/.fit" / file, changed if file == "flow.pt" else None)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=20)
        assert process.returncode == -signal.SIGKILL and not (here / "killed/report.json").exists()
    for name in ("killed", "whole"):
        process = start(*LONG, "--steps", 1000, "--out", name)
        _, said = process.communicate(timeout=600)
        assert process.returncode == 0, said
    one, two = ((here / name / "flow.safetensors").read_bytes() for name in ("killed", "whole"))
    assert one == two
