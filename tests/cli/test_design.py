"""`eqflow design` and `eqflow atlas`: worlds of creatures, their reports, what a stop costs, what is refused."""

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from eqflow.cli import app
from eqflow.score import read_score

SMALL = ("--pixels", 10, "--canvas", 32, "--size", "40x48", "--width", 4, "--dilations", "1,1", "--minutes", 1e-4)
SHORT = ("--steps", 40, "--every", 4)


def run(*words, code=0):
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == code, result.output
    return result.output


def frames(path):
    with Image.open(path) as image:
        image.load()
        return getattr(image, "n_frames", 1)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A finished world of two species."""
    path = tmp_path_factory.mktemp("worlds") / "pond"
    run("design", "fish", "firefly", *SMALL, *SHORT, "--kernel", "angles:0.3,-0.2,0.1", "--out", path)
    return path


def test_a_world_is_whole_and_says_what_lives_in_it(world):
    report = json.loads((world / "report.json").read_text())
    assert report["world"] == "fish-firefly/angles:0.3,-0.2,0.1/0"
    assert np.load(world / "world.npy").shape == (11, 3, 40, 48)
    assert np.load(world / "null.npy").shape == (3, 3, 40, 48)
    assert {row["name"] for row in report["rows"]} >= {"speed", "polarisation", "pairs approach", "lifetime"}
    assert report["recognition"]["noise"][0] < 0.3 < 0.8 < report["recognition"]["scatter"][0]
    assert report["matrix"][0] == pytest.approx([0.0, -0.1, -0.2])  # s -> omega x s
    assert not (world / ".design").exists()
    for picture in ("trails.png", "average.png", "null.png", "scatter.png", "rule.png", "curves.png", "film.webp"):
        assert frames(world / picture) == (11 if picture == "film.webp" else 1)
    stored = read_score(world / "score.safetensors")
    assert stored.pictures.shape[:2] == (2, 4) and stored.channels == ("red", "green", "blue")


def test_the_page_needs_no_network(world):
    page = (world / "index.html").read_text()
    assert not re.search(r"(src|href)=\"(?!data:)", page) and "<script" not in page
    assert page.count("data:image/") == 7 and "eqflow" in page and "polarisation" in page


def test_the_same_command_finds_it_made_and_another_is_refused(world):
    same = ("design", "fish", "firefly", *SMALL, *SHORT, "--kernel", "angles:0.3,-0.2,0.1", "--out", world)
    assert "was complete already" in run(*same, "--show", "pond.gif", "--json", "pond.json")
    assert frames("pond.gif") == 11 and json.loads(Path("pond.json").read_text())["size"] == [40, 48]
    assert "choose another --out" in run(*same, "--seed", 1, code=1)


def test_rollout_takes_the_score_of_a_world(world):
    run("rollout", world, "--steps", 8, "--every", 4, "--batch", 2, "--size", 36, "--out", "path", "--show", "p.gif")
    assert frames("p.gif") == 3
    run("rollout", world, "--kernel", "random:1:1", "--steps", 2, "--batch", 1, "--out", "r", "--show", "r.png")
    assert frames("r.png") == 1


def test_noise_is_a_start_too(here):
    run("design", "dots", *SMALL, "--steps", 31, "--start", "noise", "--out", "soup")
    kept = np.load("soup/world.npy")
    assert len(kept) == 32  # one a step, where there are few
    assert kept[0].std() < 60  # nothing of a creature yet, or hardly


@pytest.mark.slow
def test_a_killed_design_goes_on_to_the_same_bytes(here):
    words = ["design", "fish", *SMALL, "--steps", 400, "--every", 20]
    environment = {"OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"}
    command = [sys.executable, "-m", "eqflow", *map(str, words)]
    plan, kept = here / "cut" / ".design" / "plan.json", here / "whole" / ".design" / "plan.json"
    kept.parent.mkdir(parents=True)
    for delay in (0.05, 0.7, 0.4, 0.9, 0.3):
        process = subprocess.Popen([*command, "--out", "cut"], env=environment, stderr=subprocess.DEVNULL)
        while not plan.exists():
            assert process.poll() is None, "it ended before it was killed"
            time.sleep(0.02)
        shutil.copy(plan, kept)
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    subprocess.run([*command, "--out", "cut"], env=environment, check=True, capture_output=True)
    subprocess.run([*command, "--out", "whole"], env=environment, check=True, capture_output=True)
    for file in ("score.safetensors", "world.npy", "null.npy", "film.webp", "trails.png", "tracks.npz"):
        assert (here / "cut" / file).read_bytes() == (here / "whole" / file).read_bytes(), file


def test_overwriting_a_world_leaves_what_is_not_its_own(world):
    copy = Path("copy")
    shutil.copytree(world, copy)
    (copy / "index.html").unlink()
    same = ("design", "fish", "firefly", *SMALL, *SHORT, "--kernel", "angles:0.3,-0.2,0.1", "--out", copy)
    assert "was complete already" in run(*same) and (copy / "index.html").exists()  # only the page is made again
    for name in ("mine.npy", "mine.png"):
        (copy / name).write_bytes(b"mine")
    run("design", "dots", *SMALL, *SHORT, "--out", copy, "--overwrite")
    assert all((copy / name).read_bytes() == b"mine" for name in ("mine.npy", "mine.png"))


def test_an_atlas_sorts_its_worlds_and_names_them(world):
    said = run("atlas", world, "--rules", 3, "--steps", 12, "--every", 4, "--size", 40, "--out", "atlas")
    report = json.loads(Path("atlas/report.json").read_text())
    speeds = [found["speed"][0] for found in report["worlds"] if found["speed"][0] is not None]
    assert len(report["worlds"]) == 4 and speeds == sorted(speeds, reverse=True)
    assert sum(found["kernel"] == "none" for found in report["worlds"]) == 1
    assert report["worlds"][0]["name"] in said and frames("atlas/atlas.webp") == 4
    assert frames("atlas/atlas.png") == 1
    assert "was complete already" in run(
        "atlas", world, "--rules", 3, "--steps", 12, "--every", 4, "--size", 40, "--out", "atlas"
    )


def test_what_is_wrong_is_said_with_the_remedy(here, world):
    Image.new("RGB", (20, 20), "red").save("full.png")
    Image.new("RGBA", (20, 20)).save("clear.png")
    (here / "broken.png").write_bytes(b"\x89PNG\r\n")
    for words, message, code in (
        (("design",), "expected a picture", 2),
        (("design", "full.png"), "no alpha: erase the background", 1),
        (("design", "clear.png"), "clear everywhere", 1),
        (("design", "broken.png"), "cannot read the picture", 1),
        (("design", "dragon.png"), "no such file", 1),
        (("design", "fish", "--pixels", 60, "--size", 64), "smaller than the world", 2),
        (("design", "fish", "--minutes", 0), "--minutes to be a finite number above 0", 2),
        (("design", "fish", "--size", 5000), "--size up to 4096", 2),
        (("design", "fish", "--alpha", 1.0), "--alpha in (0, 1)", 2),
        (("design", "fish", "--background", "green"), "white, black or #rrggbb", 2),
        (("design", "fish", "--scale", "2:1"), "--scale LOW:HIGH", 2),
        (("design", "fish", "--kernel", "angles:1,2"), "three numbers of omega", 2),
        (("design", "fish", "--show", "film.txt"), "--show to end in .webp", 2),
        (("design", "fish", "--steps", 10, "--every", 3), "--every to divide", 2),
        (("atlas",), "a folder of `eqflow design`", 2),
        (("atlas", world, "--rules", 0), "--rules in [1", 2),
        (("atlas", "pretrained:wave"), "the score of creatures", 1),
        (("atlas", world, "--size", 8), "a world larger than its creatures", 2),
        (("compare", world), "whose system is known", 1),
    ):
        assert message in " ".join(run(*words, code=code).split()), words


def test_scattered_images_are_the_same_however_they_are_sharded(here):
    words = ("fish", "dots", "--pixels", 10, "--size", "40x48", "--coverage", 0.2)
    said = run("scatter", *words, "--samples", 70, "--out", "all.npy", "--show", "all.png")
    assert "70 images of 40 x 48" in said and frames("all.png") == 1
    run("scatter", *words, "--samples", 6, "--first", 64, "--out", "end.npy")
    images = np.load("all.npy")
    assert images.shape == (70, 3, 40, 48) and images.dtype == np.uint8
    assert np.array_equal(images[64:], np.load("end.npy"))
    assert "add --overwrite" in run("scatter", *words, "--out", "all.npy", code=1)
    assert "smaller than the world" in run("scatter", "fish", "--size", 16, "--out", "x.npy", code=2)
    assert "--samples from 1 up" in run("scatter", "fish", "--samples", 0, code=2)
    assert ".npy file" in run("scatter", "fish", "--out", "x.png", code=2)
