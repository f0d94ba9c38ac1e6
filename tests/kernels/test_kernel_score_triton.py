"""kernels/kernel_score.py: run in the interpreter or on a GPU, and compiled for GPUs that are not there."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from eqflow import ops

pytest.importorskip("triton")
# The interpreter of triton 3.6 turns arrays of one element into the bounds of a loop.
pytestmark = pytest.mark.filterwarnings("ignore:Conversion of an array with ndim > 0:DeprecationWarning")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
TARGETS = ("sm_80", "sm_90", "sm_100", "gfx942")
COMPILE = """
import json, sys
sys.path.insert(0, sys.argv[1])
import compile_triton as compiler
from eqflow.kernels import kernel_score as kernels
from triton.compiler import compile
constants = {"excluded": None, "POINTS": kernels._POINTS, "QUERIES": kernels._QUERIES, "COLUMNS": kernels._COLUMNS}
constants["STRETCH"] = kernels._STRETCH
cases = {"plain": ("log_weights", "smoothed"), "values": ("log_weights",), "weights": ("smoothed",)}
rows = {}
for target in sys.argv[2:]:
    nvidia = target.startswith("sm_")
    gpu = compiler.GPUTarget("cuda", int(target[3:]), 32) if nvidia else compiler.GPUTarget("hip", target, 64)
    for name, absent in cases.items():
        case = compiler.Case(kernels.kernel_score_kernel, constants | dict.fromkeys(absent))
        done = compile(compiler.source(case), target=gpu, options={"num_warps": 4, "enable_fp_fusion": False})
        rows[f"{target}: {name}"] = compiler.nvidia_needs(done.asm) if nvidia else compiler.amd_needs(done.asm)
print(json.dumps(rows))
"""


@pytest.mark.parametrize(
    "queries, points, dimension, numbers",
    [(1, 1, 1, 0), (70, 130, 3, 2), (5, 64, 2, 0), (3, 100, 5, 4), (2, 20, 17, 0)],
)
@pytest.mark.parametrize("whole", [True, False])
def test_triton_agrees_with_native(queries, points, dimension, numbers, whole):
    generator = torch.Generator().manual_seed(1)
    x, y = torch.randn(points, dimension, generator=generator), torch.randn(queries, dimension, generator=generator)
    options = {"values": torch.randn(points, numbers, generator=generator)} if numbers else {}
    if not whole and points > 1:
        options |= {"weights": torch.rand(points, generator=generator), "exclude": torch.arange(queries) % points}
    native = ops.kernel_score(y, x, alpha=0.8, backend="native", **options)
    on_device = {name: value.to(DEVICE) for name, value in options.items()}
    compiled = ops.kernel_score(y.to(DEVICE), x.to(DEVICE), alpha=0.8, backend="triton", **on_device)
    for ours, theirs in zip(compiled, native, strict=True):
        if theirs is None:
            assert ours is None
        else:
            assert (ours.cpu() - theirs).abs().max() <= 4e-6 * theirs.abs().max().clamp_min(1)


def test_far_queries_do_not_underflow():
    x, y = torch.zeros(3, 1), torch.full((2, 1), 50.0)
    result = ops.kernel_score(y.to(DEVICE), x.to(DEVICE), alpha=0.99, backend="triton")
    assert result.score[0].item() == pytest.approx(-5000, rel=1e-5)
    assert math.isfinite(result.log_density[0].item())


@pytest.fixture(scope="module")
def needs(tmp_path_factory):
    environment = dict(os.environ, TRITON_CACHE_DIR=str(tmp_path_factory.mktemp("triton")))
    environment.pop("TRITON_INTERPRET", None)
    command = [sys.executable, "-c", COMPILE, str(Path(__file__).parent), *TARGETS]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_nothing_spills_and_registers_stay_low(needs):
    assert len(needs) == 3 * len(TARGETS)
    greedy = {name: row for name, row in needs.items() if row["spills"] or row["registers"] > 128}
    assert not greedy
