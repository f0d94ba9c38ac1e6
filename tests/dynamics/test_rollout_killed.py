"""SIGKILL at any moment, and on: the same bits, frames on disk included, in constant memory."""

import re
import subprocess
import sys

import pytest

# Children are forked from one process that has imported torch, so that five of them start in no time.
DRIVER = """
import os, random, re, signal, sys, time
from pathlib import Path
import torch
from eqflow.data.checkpoint import Checkpoint
from eqflow.data.recorder import Recorder
from eqflow.dynamics import SkewFlow, rollout, skew
from eqflow.dynamics.observers import Moments, Watcher
from eqflow.score import Gaussian

folder, steps, every, kills = Path(sys.argv[1]), *map(int, sys.argv[2:])
torch.set_num_threads(1)
torch.use_deterministic_algorithms(True)
covariance = torch.tensor([[2.0, 0.5], [0.5, 0.7]])

def memory():
    return int(re.search(r"VmRSS:\\s*(\\d+)", Path("/proc/self/status").read_text())[1])

def run(name, *more):
    score = Gaussian(torch.zeros(2), covariance)
    start, sizes = score.sample(4, seed=1), []
    frames, moments = folder / f"{name}.hdf5", Moments(every=7)
    with Recorder(frames, start, steps=steps, every=every, dt=0.1) as recorder:
        watcher = Watcher(lambda step, time: sizes.append((step, memory())), max(1, steps // 10))
        store = Checkpoint(folder / f"{name}.pt", every=every)
        flow = SkewFlow(score, skew.rotation(1.3), 0.4)
        rollout(start, flow, steps, dt=0.1, seed=3, observers=[recorder, moments, watcher, *more], checkpoint=store)
    return sizes

rng = random.Random(steps)
begin = time.monotonic()
sizes = run("whole")
took = time.monotonic() - begin
for kill in range(kills):
    target = steps * (kill + 1) // (kills + 1)
    reader, writer = os.pipe()
    if not (child := os.fork()):
        run("killed", Watcher(lambda step, time: step == target and os.write(writer, b"!"), target))
        os._exit(0)
    os.read(reader, 1)  # it has come so far; the kill may hit anything it does next
    time.sleep(rng.uniform(0, 0.01))
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    print("killed" if os.WIFSIGNALED(status) else "ended", (folder / "killed.pt").exists())
run("killed")
for ending in ("hdf5", "pt"):
    pair = [(folder / f"{name}.{ending}").read_bytes() for name in ("whole", "killed")]
    if ending == "pt":
        pair = [torch.load(folder / f"{name}.pt", weights_only=True) for name in ("whole", "killed")]
        pair = [(p["state"].numpy().tobytes(), p["observers"][1]["powers"].numpy().tobytes(), p["step"]) for p in pair]
    print(ending, "equal" if pair[0] == pair[1] else "DIFFERENT")
print("memory", sizes[1][1], sizes[-1][1], "kB; undisturbed", round(took, 1), "s")
"""


def run(folder, steps, every, kills, timeout):
    words = [sys.executable, "-c", DRIVER, folder, steps, every, kills]
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True, timeout=timeout)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_five_kills_change_no_bit(tmp_path):
    said = run(tmp_path, 2000, 10, 5, 120)
    assert said.count("killed ") == 5, said
    assert "hdf5 equal" in said and "pt equal" in said, said
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix == ".hdf5") == ["killed.hdf5", "whole.hdf5"]


@pytest.mark.slow
def test_a_million_steps_killed_five_times_in_constant_memory(tmp_path):
    said = run(tmp_path, 1_000_000, 1000, 5, 3600)
    print(said)
    assert said.count("killed ") == 5 and "hdf5 equal" in said and "pt equal" in said, said
    before, after = map(int, re.search(r"memory (\d+) (\d+)", said).groups())
    assert after - before < 2000, said  # kB
