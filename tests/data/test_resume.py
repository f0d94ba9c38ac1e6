"""Killed, interrupted, or in two processes at once: the bytes are those of an undisturbed run."""

import dataclasses
import json
import random
import signal
import subprocess
import sys
import time

import pytest

from eqflow.data import Recipe, generate, inspect

# Some samples are redrawn; about two seconds of work in 24 shards.
RECIPE = Recipe.from_preset(
    "spirals", samples=96, size=64, steps=1500, every=500, shard_samples=4, initial="squares", seed=3
)
PROGRAM = """
import json, sys
import torch
from eqflow.data import Recipe, generate
torch.set_num_threads(1)
print("begin", flush=True)
generate(Recipe.from_json(json.loads(sys.argv[1])), sys.argv[2], observer=lambda p: print(*p, flush=True))
print("end", flush=True)
"""


def start(recipe, folder):
    arguments = [sys.executable, "-c", PROGRAM, json.dumps(recipe.to_json()), str(folder)]
    # A shell without job control lets its children ignore SIGINT.
    process = subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    assert process.stdout.readline() == "begin\n"
    return process


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The folder of an undisturbed run and the seconds that it took."""
    folder = tmp_path_factory.mktemp("undisturbed") / "a"
    begin = time.monotonic()
    summary = generate(RECIPE, folder)
    assert summary.redrawn
    return folder, time.monotonic() - begin


def public(digests):
    """Without what an interrupted run may leave in its private folder."""
    return {name: digest for name, digest in digests.items() if not name.endswith((".tmp", ".lock"))}


def kill_and_go_on(kills, undisturbed, folder, digests):
    reference, seconds = undisturbed
    moment = random.Random(kills)
    done = []
    for _ in range(kills):
        process = start(RECIPE, folder)
        time.sleep(moment.uniform(0, 2 * seconds / kills))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        done.append(len(list((folder / "data" / "train").glob("*.hdf5"))) if folder.exists() else 0)
    generate(RECIPE, folder)
    print(f"shards finished at each kill: {done}")
    assert public(digests(folder)) == public(digests(reference))
    assert not list((folder / "data" / "train").glob(".*"))
    assert inspect(folder).complete


def test_killed_and_resumed(undisturbed, tmp_path, digests):
    kill_and_go_on(3, undisturbed, tmp_path / "a", digests)


@pytest.mark.slow
def test_killed_twenty_times_and_resumed(undisturbed, tmp_path, digests):
    kill_and_go_on(20, undisturbed, tmp_path / "a", digests)


def test_interrupted_and_resumed(undisturbed, tmp_path, digests):
    process = start(RECIPE, tmp_path / "a")
    process.stdout.readline()
    begin = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == -signal.SIGINT
    assert errors.strip().endswith("KeyboardInterrupt")
    assert time.monotonic() - begin < 10
    assert not list((tmp_path / "a" / "data" / "train").glob(".*"))
    report = inspect(tmp_path / "a")
    assert not report.complete and report.shards < report.shards_total
    generate(RECIPE, tmp_path / "a")
    assert public(digests(tmp_path / "a")) == public(digests(undisturbed[0]))


def test_two_processes_on_one_folder(undisturbed, tmp_path, digests):
    processes = [start(RECIPE, tmp_path / "a") for _ in range(2)]
    for process in processes:
        output, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
        assert output.endswith("end\n")
    assert digests(tmp_path / "a") == digests(undisturbed[0])


def test_an_error_in_the_observer_stops_the_work(recipe, tmp_path, digests):
    class Mine(Exception):
        pass

    def stop(progress):
        raise Mine

    with pytest.raises(Mine):
        generate(recipe, tmp_path / "a", observer=stop)
    assert not list((tmp_path / "a" / "data" / "train").glob(".*"))
    assert not list((tmp_path / "a" / ".shards").glob("0*.lock"))
    generate(recipe, tmp_path / "b")
    assert generate(recipe, tmp_path / "a").complete  # at once: no lock was left behind
    assert digests(tmp_path / "a") == digests(tmp_path / "b")


@pytest.mark.slow
def test_ranks_at_once(undisturbed, tmp_path, digests):
    program = PROGRAM.replace("sys.argv[2],", "sys.argv[2], rank=int(sys.argv[3]), ranks=3,")
    arguments = [sys.executable, "-c", program, json.dumps(RECIPE.to_json()), str(tmp_path / "a")]
    processes = [subprocess.Popen([*arguments, str(rank)], stdout=subprocess.DEVNULL) for rank in range(3)]
    assert [process.wait(120) for process in processes] == [0, 0, 0]
    assert digests(tmp_path / "a") == digests(undisturbed[0])


def test_a_changed_recipe_is_not_the_same_dataset(undisturbed):
    other = dataclasses.replace(RECIPE, seed=4)
    assert other.to_json() != RECIPE.to_json()
