"""kernels/field_moments.cu: run on the CPU (csrc/emu/cuda_runtime.h), and compiled for GPUs that are not there."""

import math
import shutil
import sys
from pathlib import Path

import pytest
import torch

from eqflow import ops
from eqflow.ops import _moment_plan

sys.path.insert(0, str(Path(__file__).parent))
import machine_code

_C = pytest.importorskip("eqflow._C", reason="eqflow._C was not built")

KERNEL = Path(__file__).parent.parent.parent / "kernels" / "field_moments.cu"
OPERATORS = ("value", "laplacian", "bilaplacian", "squared-gradient", "x-derivative", "y-derivative")
TERMS = tuple(ops.FieldTerm((1, 0), operator, factor=(0, 1)) for operator in OPERATORS)
MANY_TERMS = TERMS + tuple(map(ops.FieldTerm, ops.monomials_up_to(2, 4)))[:-2]
FEW, MANY = ops.Functionals.up_to(2, 2, 1), ops.Functionals.up_to(2, 4, 3)


@pytest.fixture(scope="module")
def emulated():
    return pytest.importorskip("eqflow._emu", reason="eqflow._emu was not built: configure with EQFLOW_EMU=ON")


def run(module, state, at, plan, margin, nine_point, at_once):
    sizes = len(plan.rows.products), len(plan.columns.products)
    moments = torch.full((len(state), *sizes), math.nan, dtype=torch.float64)
    tables = plan.rows[:3], plan.columns[:3]
    units = torch.tensor([[0.5, 2.0]]).repeat(len(state), 1) * torch.arange(1, len(state) + 1)[:, None]
    floats = at_once * module.field_moments_workspace(state, *tables, margin, nine_point)
    workspace = torch.full((floats,), math.nan)
    module.field_moments(state, at, units, *tables, moments, workspace, margin, nine_point, threads=1)
    return moments


@pytest.mark.parametrize("order", ["0", "1", "2"])  # ascending, descending, a shuffle
@pytest.mark.parametrize(
    "shape, functionals, terms, margin, nine_point, at_once",
    [
        ((1, 2, 3, 3), FEW, TERMS, 0, False, 1),
        ((3, 2, 9, 16), FEW, TERMS, 0, True, 2),
        ((1, 2, 20, 31), MANY, MANY_TERMS, 2, False, 1),
        ((2, 2, 5, 5), FEW, TERMS, 2, True, 5),
        ((1, 2, 24, 50), FEW, TERMS[:1], 0, False, 1),
    ],
)
def test_cuda_agrees_with_the_cpu(emulated, monkeypatch, order, shape, functionals, terms, margin, nine_point, at_once):
    monkeypatch.setenv("EQFLOW_EMU_ORDER", order)
    generator = torch.Generator().manual_seed(shape[-1])
    state, at = torch.rand(2, *shape, generator=generator)
    plan = _moment_plan.make(functionals, terms)
    cuda, cpu = (run(module, state, at, plan, margin, nine_point, at_once) for module in (emulated, _C))
    assert cuda.isfinite().all()
    assert ((cuda - cpu).abs() <= 1e-6 * cpu.abs().amax((0, 1))).all()


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="nvcc is not on PATH")
@pytest.mark.skipif(machine_code.disassembler() is None, reason="cuobjdump and nvdisasm are not on PATH")
@pytest.mark.parametrize("architecture", [80, 90, 100])
def test_nothing_spills(tmp_path, architecture):
    cubin = machine_code.compile_cuda(KERNEL, architecture, tmp_path)
    rows = machine_code.resources(cubin)
    assert len(rows) == 2 and all(row["STACK"] == 0 for row in rows.values()), rows
    assert max(row["REG"] for row in rows.values()) <= 128, rows  # with nvcc 13.0 74 to 120 of products, 40 of fields
    for kernel in machine_code.kernels(cubin):
        opcodes = [opcode for _, opcode, _ in kernel.code]
        assert not {"LDL", "STL"} & set(opcodes), kernel.name
        if "products" in kernel.name:
            assert kernel.hot_loop().count("FFMA") == 16 * 8  # the pixels of a thread in a tile
