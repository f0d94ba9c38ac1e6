"""`eqflow compare` and `eqflow demo`."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy
import pytest
from PIL import Image
from typer.testing import CliRunner

from eqflow.cli import _compare_measure, app

TRAINED = ("--size", 32, "--steps", 40, "--width", 8, "--dilations", "1,1", "--held-out", 4)
QUICK = ("--samples", 3, "--times", "0.04,0.08", "--lags", "1,4")


@pytest.fixture(autouse=True)
def short_film(monkeypatch):
    monkeypatch.setattr(_compare_measure, "_FRAMES", 3)


@pytest.fixture(scope="module")
def score(tmp_path_factory):
    path = tmp_path_factory.mktemp("scores") / "wave-score"
    run("train", "--system", "gray-scott:wave", "--simulated-steps", 500, *TRAINED, "--out", path)
    return path


def run(command, *words, code=0):
    result = CliRunner().invoke(app, [command, *map(str, words)])
    assert result.exit_code == code, (result.stdout, result.stderr, result.exception)
    if code:
        assert result.stdout == "" and result.stderr.count("\n") == 1 and result.stderr.startswith("error: ")
    return result


def test_a_comparison_with_its_nulls_its_picture_and_its_film(score, here):
    shown = run("compare", score, *QUICK, "--as-released", 2, "--json", "facts.json", "--show", "a.png").stdout
    folder = here / "wave-compare"
    assert sorted(path.name for path in folder.iterdir()) == [
        "compare.gif", "compare.json", "compare.png", "report.json",
    ]  # fmt: skip
    report = json.loads((here / "facts.json").read_text())
    found = report["fidelity"]
    assert numpy.shape(found["odd"]["mean"]) == (2, 2) and found["odd"]["samples"] == [[3, 3], [3, 3]]
    assert set(found["other_truths"]) == {"life", "spirals", "maze"} == set(found["other_truths_apart"])
    assert found["none"] and found["other_sample"] and len(report["as_released"]) == 2
    assert report["main"] == [1, 1] and report["precision"] == "float32" and report["precision_error"] < 1e-5
    assert 0 <= report["clamping"]["bites"] <= 1 and report["clamping"]["changes"] >= 0
    with Image.open(folder / "compare.gif") as film, Image.open(here / "a.png") as picture:
        assert film.n_frames == 4 and picture.size[0] > 1000
    for word in ("odd part", "relaxation", "another sample's truth", "maze's motion", "released protocol", "surface"):
        assert word in shown
    assert "complete, a comparison" in run("info", folder).stdout
    run("show", folder, "--out", "b.png")
    assert (here / "b.png").read_bytes() == (folder / "compare.png").read_bytes()
    assert "was complete already" in run("compare", score, *QUICK, "--as-released", 2).stdout
    assert "choose another --out" in run("compare", score, *QUICK, "--seed", 5, code=1).stderr


def test_the_way_along_k_and_the_way_back_change_places_with_its_sign(score, here):
    facts = {}
    for name, gamma in (("there", 0.5), ("back", -0.5)):
        run("compare", score, *QUICK, "--kernel", f"rotation:{gamma}", "--out", name, "--json", f"{name}.json")
        facts[name] = json.loads((here / f"{name}.json").read_text())["fidelity"]
    run("compare", score, *QUICK, "--precision", "bfloat16", "--out", "half", "--json", "half.json")
    assert 1e-4 < json.loads((here / "half.json").read_text())["precision_error"] < 0.05
    there, back = facts["there"], facts["back"]
    assert there["plus"] == back["minus"] and there["none"] == back["none"] and there["even"] == back["even"]
    assert numpy.allclose(there["odd"]["mean"], -numpy.array(back["odd"]["mean"]), atol=1e-12)


REFUSED = {
    "nothing": ([], 2, "expected RUN, the folder of `eqflow train`, or pretrained:NAME"),
    "no folder": (["nowhere"], 1, "nowhere is no folder: make one with `eqflow train`"),
    "no such score": (["pretrained:moon"], 1, "expected a pretrained score"),
    "samples": (["a", "--samples", 1], 2, "one has no standard error"),
    "times": (["a", "--times", "1,x"], 2, "expected --times as numbers"),
    "falling": (["a", "--lags", "20,1"], 2, "expected --lags rising"),
    "released": (["a", "--as-released", 100], 2, "up to --samples 64"),
}


@pytest.mark.parametrize("words, code, expected", REFUSED.values(), ids=REFUSED)
def test_a_wrong_request_is_one_line_and_writes_nothing(words, code, expected, here):
    assert expected in run("compare", *words, code=code).stderr
    assert not list(here.iterdir())


def test_a_time_that_no_step_reaches_and_a_score_without_a_system(score, here):
    assert "multiples of dt" in run("compare", score, *QUICK[:2], "--times", "0.03", code=2).stderr
    numpy.save("fields.npy", numpy.random.default_rng(0).normal(size=(9, 2, 16, 16)).astype("float32"))
    run("train", "fields.npy", "--steps", 2, "--width", 4, "--dilations", "1")
    assert "expected a score whose system is known" in run("compare", "fields-score", code=1).stderr


@pytest.mark.slow
def test_killed_it_ends_with_the_same_report(score, here):
    command = [sys.executable, "-m", "eqflow", "compare", str(score), "--samples", "24", "--times", "1", "--out"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([*command, "whole"], check=True, env=environment, capture_output=True)
    process = subprocess.Popen([*command, "killed"], env=environment, stderr=subprocess.DEVNULL)
    part = here / "killed" / ".compare" / "00000.pt"
    while not part.exists():
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (here / "killed" / "report.json").exists()
    subprocess.run([*command, "killed"], check=True, env=environment, capture_output=True)
    whole, killed = (json.loads((here / name / "report.json").read_text()) for name in ("whole", "killed"))
    assert whole["fidelity"] == killed["fidelity"]


@pytest.mark.slow
def test_the_demo_goes_the_whole_way_and_finds_it_done(here):
    words = ("--samples", 40, "--size", 64, "--steps", 30, "--starts", 3)
    shown = run("demo", *words).stdout
    for command in ("generate wave", "train demo/wave", "rollout demo/wave-score", "compare demo/wave-score"):
        assert f"eqflow {command}" in shown
    assert (here / "demo" / "wave-path.gif").exists() and (here / "demo" / "wave-compare" / "compare.gif").exists()
    assert run("demo", *words).stdout.count("was complete already") == 4
