"""`eqflow density`, `eqflow cluster` and `eqflow denoise`."""

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
from typer.testing import CliRunner

from eqflow.cli import _density_kept, app

SHORT = ("--components", 60, "--steps", 120, "--rate", 0.03)


@pytest.fixture
def plain(monkeypatch):
    """A white pixel for a picture: drawing takes longer than these trainings."""
    monkeypatch.setattr("eqflow.cli._density_picture.draw", lambda out, *_: Image.new("L", (1, 1), 255).save(out))


def run(command, *words, code=0):
    result = CliRunner().invoke(app, [command, *map(str, words)])
    assert result.exit_code == code, (result.stdout, result.stderr, result.exception)
    if code:
        assert result.stdout == "" and result.stderr.count("\n") == 1 and result.stderr.startswith("error: ")
    return result


def blobs(count=1200, seed=0):
    """Three round groups of 1/2, 1/3 and 1/6 of the points, far off the centre and of unequal scales."""
    random = numpy.random.default_rng(seed)
    centres = numpy.array([[0, 0], [4, 0], [0, 4]])
    which = numpy.repeat([0, 1, 2], [count // 2, count // 3, count // 6])
    points = centres[which] + 0.3 * random.normal(size=(count, 2))
    return points * [100, 1] + [1000, -5], which


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A finished density of three groups."""
    place = tmp_path_factory.mktemp("density")
    numpy.savetxt(place / "blobs.csv", blobs()[0], delimiter=",", header="mass,height", comments="")
    result = run("density", place / "blobs.csv", *SHORT, "--out", place / "run", "--json", place / "report.json")
    (place / "said.txt").write_text(result.stdout)
    return place


def test_everything_is_in_the_folder_and_the_report_is_in_the_units_of_the_points(folder):
    names = {path.name for path in (folder / "run").iterdir()}
    assert names == {"density.json", "density.safetensors", "report.json", "density.png"}
    report = json.loads((folder / "run/report.json").read_text())
    assert report == json.loads((folder / "report.json").read_text())
    # Of a mixture of three far groups: the entropy of the groups and that of one of them.
    shares = numpy.array([1 / 2, 1 / 3, 1 / 6])
    entropy = -(shares * numpy.log(shares)).sum() + 1 + numpy.log(2 * numpy.pi * 0.3**2 * 100)
    assert report["log_density"] == pytest.approx(-entropy, abs=0.25)
    assert report["log_density"] > report["log_density_of_one_gaussian"] + 1
    said = (folder / "said.txt").read_text()
    for words in ("1,200 of 2 coordinates: mass, height", "60 Gaussians of one shape, by maximum likelihood",
                  "above one Gaussian", "Stein's identities hold to", "next: eqflow cluster"):  # fmt: skip
        assert words in said, words
    with Image.open(folder / "run/density.png") as image:
        assert min(image.size) > 500


def test_the_density_can_be_used(folder):
    kept = _density_kept.load(folder / "run", None, None, None)
    numpy.testing.assert_allclose(kept.outward(kept.points).numpy(), blobs()[0], rtol=1e-5, atol=1e-3)
    sample = kept.outward(kept.density.sample(4000, seed=1)).numpy()
    numpy.testing.assert_allclose(sample.mean(0), blobs()[0].mean(0), rtol=0.1)
    assert kept.names == ("mass", "height") and kept.density.log_density(kept.points).dtype == torch.float64


def test_groups_are_found(folder, here):
    words = ("cluster", folder / "run", "--out", "c.csv", "--show", "c.png", "--json", "c.json")
    said = run(*words).stdout
    assert "1,200 points of mass, height: 3 clusters at temperature 16" in said
    assert "clusters by temperature: " in said and "600  50.0%" in said
    table = numpy.loadtxt("c.csv", delimiter=",", skiprows=1)
    assert (here / "c.csv").read_text().startswith("mass,height,cluster\n")
    numpy.testing.assert_array_equal(table[:, 2], blobs()[1] + 1)
    numpy.testing.assert_allclose(table[:, :2], blobs()[0], rtol=1e-5, atol=1e-3)
    facts = json.loads((here / "c.json").read_text())
    assert [each["points"] for each in facts["clusters"]] == [600, 400, 200]
    assert facts["clusters"][1]["centre"]["mass"] == pytest.approx(1400, abs=15)
    with Image.open("c.png") as image:
        assert min(image.size) > 500
    assert "exists already: add --overwrite" in run(*words, code=1).stderr
    assert "1 cluster at temperature 100000" in run(*words, "--overwrite", "--temperature", 1e5).stdout
    assert len(json.loads((here / "c.json").read_text())["clusters"]) == 1


def test_other_points_can_be_sorted_and_denoised(folder, here):
    fresh, which = blobs(120, seed=5)
    numpy.savetxt("fresh.csv", numpy.c_[fresh[:, 1], fresh[:, 0]], delimiter=",", header="b,a", comments="")
    run("cluster", folder / "run", "fresh.csv", "--columns", "a,b", "--out", "labels.npy")
    numpy.testing.assert_array_equal(numpy.load("labels.npy")[:, 2], which + 1)
    more = ("--columns", "a,b", "--out", "clean.npy", "--show", "clean.png", "--json", "d.json")
    said = run("denoise", folder / "run", "fresh.csv", *more, "--temperature", 16).stdout
    assert "120 points of mass, height moved by" in said
    clean, centres = numpy.load("clean.npy"), numpy.array([[1000, -5], [1400, -5], [1000, -1]])
    before, after = (numpy.linalg.norm((each - centres[which]) / [100, 1], axis=1).mean() for each in (fresh, clean))
    assert after < 0.7 * before
    facts = json.loads((here / "d.json").read_text())
    assert facts["log_density_after"] > facts["log_density_before"]


@pytest.mark.parametrize("words", [("cluster",), ("denoise", "--out", "d.csv")])
def test_a_report_that_cannot_be_written_is_one_line(folder, here, words):
    (here / "file").touch()
    command, *more = words
    result = CliRunner().invoke(app, [command, str(folder / "run"), *more, "--json", "file/report.json"])
    assert result.exit_code == 1 and result.stderr.startswith("error: cannot write file/report.json")


def test_the_same_command_finds_it_complete_and_another_is_refused(folder):
    words = ("density", folder / "blobs.csv", *SHORT, "--out", folder / "run")
    before = (folder / "run/density.safetensors").stat().st_mtime_ns
    assert "was complete already" in run(*words).stdout
    result = run(*words, "--couplings", 2, code=1)
    assert "couplings is 0 there and 2 here" in result.stderr and "--overwrite" in result.stderr
    assert (folder / "run/density.safetensors").stat().st_mtime_ns == before


def test_info_and_show_know_it(folder, here):
    said = run("info", folder / "run").stdout
    assert "complete, a density" in said and "60 Gaussians" in said and "command" in said
    assert json.loads(run("info", folder / "run", "--json").stdout)["report"]["points"] == 1200
    run("show", folder / "run")
    assert (here / "run.png").read_bytes() == (folder / "run/density.png").read_bytes()
    assert "end in .png for a density, got 'a.gif'" in run("show", folder / "run", "--out", "a.gif", code=2).stderr


@pytest.mark.parametrize("dimension", [1, 4])
def test_a_line_and_more_coordinates(here, dimension):
    values = numpy.random.default_rng(0).normal(size=(400, dimension))
    values[:200, 0] += 14
    numpy.save("points.npy", values)
    run("density", "points.npy", "--components", 8, "--steps", 60, "--rate", 0.05, "--out", "run", "--show", "p.png")
    said = run("cluster", "run", "--show", "c.png", "--temperature", 4, "--radius", 0.3).stdout
    assert "2 clusters at temperature" in said
    run("denoise", "run", "--out", "d.csv", "--show", "d.png")
    for name in ("p", "c", "d"):
        with Image.open(f"{name}.png") as image:
            assert min(image.size) > 400


def test_couplings_and_both_objectives(here, plain):
    more = ("--couplings", 2, "--hidden", "16,16", "--objective", "both", "--components", 20, "--steps", 20)
    said = run("density", "ring", "--samples", 500, *more).stdout
    assert "20 Gaussians of one shape, bent by 2 couplings, by maximum likelihood and score matching" in said
    run("denoise", "ring-density", "--out", "d.csv")


WRONG = {
    "no points": (["density"], 2, "expected POINTS"),
    "another system": (["density", "nine-arc"], 2, "did you mean nine-arcs"),
    "no file": (["density", "none.csv"], 1, "no such file"),
    "objective": (
        ["density", "ring", "--objective", "mle"],
        2,
        "expected --objective to be likelihood, matching or both",
    ),
    "components": (["density", "ring", "--components", "0"], 2, "expected --components from 1 up, got 0"),
    "many components": (["density", "ring", "-n", "200", "--components", "150"], 2, "take --components 20"),
    "hidden": (["density", "ring", "--hidden", "8"], 2, "expected --hidden with --couplings"),
    "hidden widths": (["density", "ring", "--couplings", "2", "--hidden", "8x8"], 2, "1 to 4 widths"),
    "rate": (["density", "ring", "--rate", "nan"], 2, "expected --rate to be a finite number above 0"),
    "seed": (["density", "ring", "--seed", "-1"], 2, "expected --seed in [0, 2^64)"),
    "show": (["density", "ring", "--show", "a.gif"], 2, "expected --show to end in .png"),
    "few samples": (["density", "ring", "--samples", "50"], 1, "expected 100 different points or more, got 50"),
    "no run": (["cluster"], 2, "expected RUN, the folder of a density"),
    "no folder": (["cluster", "nothing"], 1, "nothing is no folder: make one with `eqflow density`"),
    "no out": (["denoise", "nothing"], 2, "expected --out FILE"),
    "out": (["denoise", "nothing", "--out", "a.txt"], 2, "expected --out to end in .csv or .npy"),
    "temperature": (["cluster", "nothing", "-t", "0"], 2, "expected --temperature to be a finite number above 0"),
    "radius": (["cluster", "nothing", "--radius", "-1"], 2, "expected --radius to be a finite number above 0"),
    "steps": (["denoise", "nothing", "--steps", "0", "--out", "a.csv"], 2, "expected --steps from 1 up"),
    "columns": (["cluster", "nothing", "--columns", "x"], 2, "expected --columns with a file of points only"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_request_is_one_line_and_writes_nothing(here, name):
    words, code, message = WRONG[name]
    assert message in run(*words, code=code).stderr
    assert not list(here.iterdir())


def test_points_that_do_not_suit(folder, here):
    good = blobs(120)[0]
    numpy.save("nan.npy", numpy.where(numpy.arange(240).reshape(120, 2) == 35, numpy.nan, good))
    assert "row 18 in x2" in run("density", "nan.npy", code=1).stderr
    assert "row 18 in x2" in run("cluster", folder / "run", "nan.npy", code=1).stderr
    numpy.save("wide.npy", numpy.c_[good, good])
    assert (
        "expected points of the 2 coordinates mass, height in wide.npy"
        in run("denoise", folder / "run", "wide.npy", "--out", "d.csv", code=1).stderr
    )
    (here / "begun").mkdir()
    (here / "begun/density.json").write_text("{}")
    assert "the same `eqflow density` again goes on" in run("cluster", "begun", code=1).stderr
    assert "has no density.json" in run("cluster", ".", code=1).stderr


DRIVER = """
from eqflow.cli import _density_work, main
_density_work._SECONDS = 0.0  # a checkpoint at every occasion
main()
"""
LONG = ("nine-arcs", "--samples", 1000, "--components", 20)


def start(*words):
    command = [sys.executable, "-c", DRIVER, "density", *map(str, words)]
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


@pytest.mark.slow
def test_a_killed_density_goes_on_to_the_same_bytes(here):
    changed = None
    for _ in range(2):
        process = start(*LONG, "--steps", 400, "--out", "killed")
        changed = wait_for_change(here / "killed/.density/training.pt", changed)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=20)
        assert process.returncode == -signal.SIGKILL and not (here / "killed/report.json").exists()
    for name in ("killed", "whole"):
        process = start(*LONG, "--steps", 400, "--out", name)
        _, said = process.communicate(timeout=600)
        assert process.returncode == 0, said
    one, two = ((here / name / "density.safetensors").read_bytes() for name in ("killed", "whole"))
    assert one == two


@pytest.mark.slow
def test_an_interrupted_density_says_how_to_go_on(here):
    process = start(*LONG, "--steps", 10**6)
    first = wait_for_change(here / "nine-arcs-density/.density/training.pt", None)
    wait_for_change(here / "nine-arcs-density/.density/training.pt", first)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=20)
    assert process.returncode == 130 and "to go on, run `eqflow density nine-arcs" in said, said
    assert "Traceback" not in said
