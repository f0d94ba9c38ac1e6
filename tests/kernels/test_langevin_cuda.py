"""The CUDA kernels of the Langevin update: bits in the emulation, and what the compiler makes of them."""

import importlib.util
import math
import shutil
from pathlib import Path

import pytest
import torch

_C = pytest.importorskip("eqflow._C", reason="eqflow._C was not built")

ROOT = Path(__file__).parent.parent.parent
COUNTER = {"seed": 2**63 + 5, "step": 2**32 + 7, "stream": 2, "first_sample": 3}


@pytest.fixture(scope="module")
def _emu():
    return pytest.importorskip("eqflow._emu", reason="eqflow._emu was not built: configure with EQFLOW_EMU=ON")


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def update(module, state, output, kernels, base=None, noise_scale=0.3, step_in_memory=None, **counter) -> torch.Tensor:
    result = torch.full(state.shape, math.nan)
    counter = COUNTER | counter
    output_kernel = None if output is None else kernels[1]
    scales = {"noise_scale": noise_scale, "base_scale": 0.5, "step_in_memory": step_in_memory}
    module.langevin(state, output, kernels[0], output_kernel, base, result, threads=1, **scales, **counter)
    return result


def problem(batch: int, channels: int, height: int, width: int, radius: int):
    shape, size = (batch, channels, height, width), 2 * radius + 1
    return random(*shape), random(*shape, seed=1), random(2, channels, channels, size, size, seed=2)


SHAPES = [  # batch, channels, height, width, radius
    *((2, channels, 4, 6, 0) for channels in (1, 2, 3, 4, 5, 8, 9, 16, 17, 32, 33)),
    (1, 6, 24, 24, 0),  # more groups than a block has threads for
    (300, 2, 1, 4, 0),
    (1, 2, 64, 64, 0),
    *((70, dimension, 1, 1, 0) for dimension in (1, 2, 3, 7)),
    (3, 3, 5, 7, 0),
    (2, 2, 3, 5, 1),
    *((2, channels, 6, 8, radius) for radius in (1, 2) for channels in (1, 2, 3, 4, 6)),
    (1, 2, 1, 4, 2),
    *((1, channels, 40, 140, radius) for channels, radius in ((2, 1), (1, 2), (4, 1))),  # more than one tile
    (2, 2, 2, 4, 2),
    *((1, 2, height, width, 1) for height, width in ((70, 12), (128, 16), (130, 4))),  # tall and narrow: mostly margins
    (1, 1, 5, 8, 3),
    (1, 2, 4, 2, 3),
]


@pytest.mark.parametrize("batch, channels, height, width, radius", SHAPES)
def test_bits_of_the_cpu(_emu, batch, channels, height, width, radius):
    state, output, kernels = problem(batch, channels, height, width, radius)
    for how in (
        {"output": output},
        {"output": output.bfloat16(), "base": random(*state.shape, seed=3)},
        {"output": None, "noise_scale": 0.0},
    ):
        expected = update(_C, state, kernels=kernels, **how)
        assert not expected.isnan().any()
        assert torch.equal(update(_emu, state, kernels=kernels, **how), expected)


@pytest.mark.parametrize("order", ["0", "1", "2", "3"])
def test_the_order_of_the_threads_does_not_matter(_emu, monkeypatch, order):
    monkeypatch.setenv("EQFLOW_EMU_ORDER", order)
    for channels, radius in ((2, 1), (5, 2), (8, 0)):
        state, output, kernels = problem(1, channels, 12, 20, radius)
        assert torch.equal(update(_emu, state, output, kernels), update(_C, state, output, kernels))


@pytest.mark.parametrize("radius", [0, 1])
def test_memory_without_alignment(_emu, radius):
    state, output, kernels = problem(2, 2, 4, 8, radius)
    shifted = torch.empty(state.numel() + 1)[1:].view_as(state).copy_(state)
    assert torch.equal(update(_emu, shifted, output, kernels), update(_C, state, output, kernels))


@pytest.mark.parametrize("width", [8, 5])
def test_the_step_is_read_from_memory(_emu, width):
    state, output, kernels = problem(2, 2, 4, width, 0)
    counted = update(_emu, state, output, kernels, step=0, step_in_memory=torch.tensor(2**40 + 3))
    assert torch.equal(counted, update(_C, state, output, kernels, step=2**40 + 3))


def test_subnormals_are_flushed(_emu):
    state, output, kernels = problem(1, 2, 4, 4, 0)
    state, output = state * 1e-38, (output * 1e-38).bfloat16()
    expected = update(_C, state, output, kernels, noise_scale=0.0)
    assert torch.equal(update(_emu, state, output, kernels, noise_scale=0.0), expected)
    assert (expected == 0).any()


# Machine code.


@pytest.fixture(scope="module", params=[80, 90, 100])
def compiled(request, tmp_path_factory):
    spec = importlib.util.spec_from_file_location("machine_code", Path(__file__).with_name("machine_code.py"))
    machine_code = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(machine_code)
    if shutil.which("nvcc") is None or machine_code.disassembler() is None:
        pytest.skip("needs nvcc, cuobjdump and nvdisasm")
    source = ROOT / "kernels" / "langevin.cu"
    cubin = machine_code.compile_cuda(source, request.param, tmp_path_factory.mktemp("langevin"))
    return machine_code.resources(cubin), machine_code.kernels(cubin)


# Of sm_80, sm_90 and sm_100 with nvcc 13.0, in brackets the most that float32 and bfloat16 outputs take.
REGISTERS = {
    "pixel_kernelILi1E": 48,  # 48
    "pixel_kernelILi2E": 64,  # 63
    "pixel_kernelILi4E": 80,  # 71
    "channel_kernel": 64,  # 64
    "tile_kernel": 128,  # 128
    "site_kernel": 128,  # 116
}


def test_nothing_spills_and_registers_stay_within_their_ceilings(compiled):
    resources, _ = compiled
    assert len(resources) == 8 + 2 + 16 + 2
    assert not {name: row for name, row in resources.items() if row["STACK"] or row["LOCAL"]}
    for kernel, ceiling in REGISTERS.items():
        assert max(row["REG"] for name, row in resources.items() if kernel in name) <= ceiling


def test_two_channels_take_at_most_60_instructions_a_number(compiled):
    """The loop over a thread's pixels: 8 numbers a turn, the sides of branches that are not taken included."""
    _, kernels = compiled
    counts = [len(kernel.hot_loop()) / 8 for kernel in kernels if "pixel_kernelILi2E" in kernel.name]
    assert len(counts) == 2
    assert all(count <= 60 for count in counts)


def test_noise_converts_no_integer(compiled):
    """A conversion runs at a quarter of the speed of other instructions."""
    _, kernels = compiled
    for kernel in kernels:
        if "pixel_kernel" in kernel.name:
            assert not {"I2F", "I2FP", "F2I"} & set(kernel.hot_loop())


def test_memory_is_read_and_written_16_bytes_at_a_time(compiled):
    _, kernels = compiled
    for kernel in kernels:
        if "pixel_kernelILi2E" in kernel.name:
            body = kernel.hot_loop()
            assert body.count("STG") == 2 and body.count("LDG") <= 8  # as single numbers: 8 and 24


def test_tiles_go_past_the_registers(compiled):
    _, kernels = compiled
    for kernel in kernels:
        if "tile_kernel" in kernel.name or "channel_kernel" in kernel.name:
            assert "LDGSTS" in {opcode for _, opcode, _ in kernel.code}, kernel.name
