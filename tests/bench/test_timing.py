import math
import shutil

import pytest
import torch

from bench import fma, peers, timing, workload
from bench.gpu import run_limited
from bench.gpu_limits import compile_program
from bench.gpu_report import markdown


def test_turns_are_counted_for_everybody():
    speeds = timing.compete({"a": (lambda: math.sqrt(2), 10), "b": (lambda: math.sqrt(3), 20)}, 0)
    assert {speed.turns for speed in speeds.values()} == {5}
    assert all(0 < speed.middle <= speed.best for speed in speeds.values())


def test_a_wrong_peer_is_refused():
    state = workload.developed(1, 8, 8)
    answer = workload.expected(state)
    for wrong in (answer.float() + 1e-3, torch.full_like(answer, math.nan).float()):
        with pytest.raises(AssertionError, match="someone is wrong"):
            workload.require_equal("someone", wrong, answer)


@pytest.mark.parametrize("name", ["NumPy", "torch eager"])
def test_a_peer_gives_the_answer(name):
    state = workload.developed(2, 9, 12)
    result = peers.as_tensor(peers.GRAY_SCOTT[name](state)(workload.CHECKED_STEPS))
    workload.require_equal(name, result, workload.expected(state), workload.PEER_TOLERANCE)


def test_multiply_adds_of_an_unknown_instruction_set_are_not_measured():
    assert fma.multiply_adds("baseline") is None


@pytest.mark.skipif(shutil.which("gcc") is None, reason="there is no gcc")
@pytest.mark.parametrize("number", ["float", "double"])
def test_multiply_adds(number):
    run, lanes = fma.multiply_adds("avx2", number)  # compiles; running it needs the instructions
    assert lanes == 12 * {"float": 8, "double": 4}[number]
    assert "avx2" not in __import__("eqflow._C")._C.cpu_isas() or math.isfinite(run(10))


def test_a_process_that_hangs_is_stopped(tmp_path):
    assert run_limited(["sleep", "60"], 0.2, tmp_path / "log", {"PATH": "/usr/bin:/bin"}, tmp_path) is None
    assert run_limited(["false"], 10, tmp_path / "log", {"PATH": "/usr/bin:/bin"}, tmp_path) == 1


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="there is no nvcc")
def test_the_program_for_the_limits_compiles(tmp_path):
    assert compile_program(tmp_path, "9.0").exists()


def test_figures_stand_beside_the_limits():
    limit = {
        "stage": "limits",
        "outcome": "ok",
        "seconds": 1,
        "rows": [{"limit": "float32 multiply-adds", "per_second": 3e13}],
    }
    speed = {
        "stage": "gray-scott",
        "outcome": "ok",
        "seconds": 1,
        "rows": [{"grid": "8 x 8", "updates_per_second": 2e12}],
    }
    assert "| 8 x 8 | 2e+12 | – | 15 |" in markdown([limit, speed])
