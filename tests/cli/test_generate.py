import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest
import torch
from typer.testing import CliRunner

from eqflow.cli import app
from eqflow.data import Snapshots, inspect

SMALL = ("--size", "24", "--steps", "40")


def run(*words, code=0):
    result = CliRunner().invoke(app, ["generate", *map(str, words)])
    assert result.exit_code == code, result.stderr
    return result


def digests(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.glob("data/train/*"))}


def test_the_defaults_are_the_papers_protocol(tmp_path, monkeypatch):
    recipes = []
    monkeypatch.setattr(sys.modules["eqflow.cli.generate"], "_run", lambda recipe, folder, **_: recipes.append(recipe))
    run("wave", "--out", tmp_path / "wave")
    (recipe,) = recipes
    assert (recipe.name, recipe.feed, recipe.kill) == ("wave", (0.018,), (0.049,))
    assert (recipe.height, recipe.width, recipe.steps, recipe.every) == (128, 128, 10_000, None)
    assert (recipe.initial, recipe.seed, recipe.samples, recipe.redraw_dead) == ("discs", 0, 64, True)


def test_a_dataset_is_made_and_the_summary_says_what_next(tmp_path, monkeypatch):
    folder = tmp_path / "wave"
    monkeypatch.setattr(sys, "argv", ["eqflow", "generate", "wave", "--overwrite"])
    result = run("wave", *SMALL, "--samples", 5, "--out", folder)
    assert re.search(r"5 samples, .* kB in 1 file, .* s, .* Gcell-updates/s\nnext: eqflow show ", result.stdout)
    report = inspect(folder)
    assert report.complete and report.shape == (5, 1, 2, 24, 24)
    assert report.environment["command"] == "eqflow generate wave"


def test_every_option_reaches_the_recipe(tmp_path):
    words = "--feed 0.03 --kill 0.06 --diffusion-u 0.12 --diffusion-v 0.05 --dt 0.5 --dx 1.25 --stencil 9-point"
    words += " --initial squares --seed 7 --size 24x32 --steps 4e1 --every 20 -n 3 --shard-size 2 --keep-dead"
    run(*words.split(), "--backend", "reference", "--device", "cpu", "--out", tmp_path / "new")
    recipe = inspect(tmp_path / "new").recipe
    assert (recipe.name, recipe.feed, recipe.kill) == ("custom", (0.03,), (0.06,))
    assert (recipe.diffusion_u, recipe.diffusion_v, recipe.dt, recipe.dx) == ((0.12,), (0.05,), 0.5, 1.25)
    assert (recipe.stencil, recipe.initial, recipe.seed, recipe.shard_samples) == ("9-point", "squares", 7, 2)
    assert (recipe.height, recipe.width, recipe.steps, recipe.every, recipe.samples) == (24, 32, 40, 20, 3)
    assert not recipe.redraw_dead


def test_sweeps_form_a_grid_that_the_samples_walk(tmp_path):
    run("wave", *SMALL, "--sweep", "feed=0.01:0.02:2", "--sweep", "kill=0.04:0.06:3", "--out", tmp_path / "map")
    data = Snapshots(tmp_path / "map")
    assert len(data) == 6 and data.recipe.name == "custom" and not data.recipe.redraw_dead
    expected = [[f, k, 0.16, 0.08] for f in (0.01, 0.02) for k in (0.04, 0.05, 0.06)]
    torch.testing.assert_close(data.parameters, torch.tensor(expected, dtype=torch.float64))


def test_the_same_command_goes_on_and_then_has_nothing_to_do(tmp_path):
    folder = tmp_path / "wave"
    words = ("wave", *SMALL, "-n", 6, "--shard-size", 2, "--out", folder)
    run(*words)
    before = digests(folder)
    (folder / "data/train/wave_00001.hdf5").unlink()
    assert "2 of the files were there before" in run(*words).stdout
    assert "complete already" in run(*words).stdout
    assert digests(folder) == before


def test_the_folder_alone_is_enough_to_go_on(tmp_path):
    folder = tmp_path / "wave"
    run("wave", *SMALL, "-n", 4, "--shard-size", 2, "--out", folder)
    before = digests(folder)
    (folder / "data/train/wave_00000.hdf5").unlink()
    run("--out", folder)
    assert digests(folder) == before and inspect(folder).complete


def test_another_dataset_is_refused_and_replaced_on_demand(tmp_path):
    folder = tmp_path / "wave"
    run("wave", *SMALL, "-n", 2, "--out", folder)
    before = digests(folder)
    result = run("wave", *SMALL, "-n", 3, "--out", folder, code=1)
    assert "made with samples 2, not 3" in result.stderr and "--overwrite" in result.stderr
    assert result.stderr.count("\n") == 1 and digests(folder) == before
    run("wave", *SMALL, "-n", 3, "--out", folder, "--overwrite")
    assert inspect(folder).recipe.samples == 3


def test_samples_that_always_die_are_one_line(tmp_path):
    words = ("--feed", 0.09, "--kill", 0.1, "--size", 24, "--steps", 400, "-n", 1, "--out", tmp_path / "dead")
    result = run(*words, code=1)
    assert "these parameters die" in result.stderr and "--keep-dead" in result.stderr
    assert result.stderr.count("\n") == 1
    assert "1 dead" in run(*words, "--keep-dead").stdout


def test_a_preset_that_dies_is_refused_before_it_is_tried(tmp_path):
    result = run("paper-bubbles", "--out", tmp_path / "dead", code=2)
    assert "ends uniform from every start" in result.stderr and not list(tmp_path.iterdir())


def test_ranks_share_the_files_and_only_the_first_speaks(tmp_path):
    words = [sys.executable, "-m", "eqflow", "generate", "wave", *SMALL, "-n", "8", "--shard-size", "2"]
    run("wave", *SMALL, "-n", 8, "--shard-size", 2, "--out", tmp_path / "one")
    ranks = [
        subprocess.Popen(
            [*words, "--out", str(tmp_path / "two")],
            env={**os.environ, "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    said = [rank.communicate(timeout=50) for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], said
    assert "on rank 0" in said[0][0] and said[1] == ("", "")
    assert digests(tmp_path / "two") == digests(tmp_path / "one")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_ends_within_a_second_and_goes_on(tmp_path, number):
    folder = tmp_path / "my wave"
    words = ["generate", "wave", "--size", "64", "--steps", "200000", "-n", "40", "--shard-size", "1"]
    words += ["--out", str(folder), "--overwrite"]
    process = subprocess.Popen([sys.executable, "-m", "eqflow", *words], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 40
    while len(list(folder.glob("data/train/*.hdf5"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(number)
    start = time.monotonic()
    _, said = process.communicate(timeout=20)
    assert time.monotonic() - start < 1.5 and process.returncode == 128 + number
    line = said.splitlines()[-1]
    assert re.search(r"stopped: \d+ of 40 files are safe", line) and "Traceback" not in said
    assert line.endswith(f"--shard-size 1 --out '{folder}'`")
    report = inspect(folder)
    assert 2 <= report.shards < 40 and json.loads((folder / ".shards" / "recipe.json").read_text())["samples"] == 40
