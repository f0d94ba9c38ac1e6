"""kernels/kernel_score.cu: run on the CPU (csrc/emu/cuda_runtime.h), and compiled for GPUs that are not there."""

import math
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

_C = pytest.importorskip("eqflow._C", reason="eqflow._C was not built")

ROOT = Path(__file__).parent.parent.parent
SHAPES = [  # queries, points, dimension, numbers
    (1, 1, 1, 0),
    (33, 300, 3, 0),
    (5, 257, 2, 5),
    (40, 31, 4, 1),
    (7, 64, 9, 0),
    (3, 50, 16, 3),
    (2, 40, 17, 9),
]


@pytest.fixture(scope="module")
def emulated():
    return pytest.importorskip("eqflow._emu", reason="eqflow._emu was not built: configure with EQFLOW_EMU=ON")


def run(module, places, table, log_weights, excluded):
    (queries, dimension), numbers = places.shape, table.shape[1] - places.shape[1]
    score, log_sum = torch.full((queries, dimension), math.nan), torch.full((queries,), math.nan)
    smoothed = torch.full((queries, numbers), math.nan) if numbers else None
    module.kernel_score(places, table, log_weights, excluded, score, log_sum, smoothed, scale=2.0, threads=1)
    return score, log_sum, *([smoothed] if numbers else [])


def cloud(queries, points, dimension, numbers):
    generator = torch.Generator().manual_seed(points)
    table = 4 * torch.randn(points, dimension + numbers, generator=generator)
    places = 4 * torch.randn(queries, dimension, generator=generator)
    return places, table, torch.rand(points, generator=generator).log2(), torch.arange(queries) % points


@pytest.mark.parametrize("order", ["0", "1", "2"])  # ascending, descending, a shuffle
@pytest.mark.parametrize("queries, points, dimension, numbers", SHAPES)
def test_cuda_agrees_with_the_cpu(emulated, monkeypatch, order, queries, points, dimension, numbers):
    monkeypatch.setenv("EQFLOW_EMU_ORDER", order)
    places, table, log_weights, own = cloud(queries, points, dimension, numbers)
    for weights, excluded in ((None, None), (log_weights, None if points == 1 else own)):
        results = zip(*(run(module, places, table, weights, excluded) for module in (emulated, _C)), strict=True)
        for cuda, cpu in results:
            assert (cuda - cpu).abs().max() <= 4e-6 * cpu.abs().max().clamp_min(1)


@pytest.mark.parametrize("target", ["sm_80", "sm_90", "sm_100"])
def test_nothing_spills(tmp_path, target):
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        pytest.skip("needs nvcc on PATH")
    options = [
        "-std=c++17",
        "--fmad=false",
        "-ftz=true",
        f"-I{ROOT / 'csrc'}",
        f"-arch={target}",
        "-Xptxas=-v",
        "-cubin",
    ]
    command = [nvcc, *options, "-o", str(tmp_path / "kernel.cubin"), str(ROOT / "kernels" / "kernel_score.cu")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    registers = [int(count) for count in re.findall(r"Used (\d+) registers", done.stderr)]
    assert len(registers) == 17 and max(registers) <= 128  # 96 on sm_80 and sm_90 with nvcc 13.0, 127 on sm_100
    assert not re.findall(r"[1-9]\d* bytes (?:stack frame|spill stores|spill loads)", done.stderr)
