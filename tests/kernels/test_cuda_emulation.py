"""The CUDA kernels run on the CPU (csrc/emu/cuda_runtime.h) and must give the bits of the CPU kernels."""

import math

import pytest
import torch

from eqflow.ops.gray_scott import coefficients

_C = pytest.importorskip("eqflow._C", reason="eqflow._C was not built")
_emu = pytest.importorskip("eqflow._emu", reason="eqflow._emu was not built: configure with EQFLOW_EMU=ON")

ORDERS = ["0", "1", "2", "3"]  # ascending, descending, two shuffles
FIVE_POINT, NINE_POINT = False, True


def normals(module, batch: int, sites: int, **counter: int) -> torch.Tensor:
    output = torch.full((batch, sites), math.nan)
    counter = {"seed": 1, "step": 0, "stream": 0, "first_sample": 0} | counter
    module.normal(output, threads=1, **counter)
    return output


@pytest.mark.parametrize(
    "batch, sites", [(1, 1), (3, 1), (2, 2), (300, 3), (7, 4), (129, 5), (2, 1023), (1, 1028), (3, 4096)]
)
def test_normals(batch, sites):
    assert torch.equal(normals(_C, batch, sites), normals(_emu, batch, sites))


@pytest.mark.parametrize(
    "counter",
    [{"seed": 2**63 + 5}, {"step": 2**32 + 7}, {"stream": 3}, {"first_sample": 11}, {"first_sample": 2**32 - 2}],
)
def test_normals_of_a_counter(counter):
    assert torch.equal(normals(_C, 5, 70, **counter), normals(_emu, 5, 70, **counter))


def test_normals_in_memory_without_alignment():
    memory = torch.full((4 * 8 + 1,), math.nan)
    output = memory[1:].view(4, 8)
    _emu.normal(output, seed=1, step=0, stream=0, first_sample=0, threads=1)
    assert torch.equal(output, normals(_C, 4, 8))


def coefficient_rows(batch: int, nine_point: bool, dt: float) -> torch.Tensor:
    """Another feed and kill for every sample."""
    sample = torch.arange(batch, dtype=torch.float64)
    parameters = torch.stack([0.018 + 0.004 * sample, 0.049 + 0.002 * sample, 0.16 + 0 * sample, 0.08 + 0 * sample])
    return coefficients(parameters, dt, "9-point" if nine_point else "5-point", torch.float32)


def initial_state(batch: int, height: int, width: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(height * 1000 + width)
    noise = torch.rand(batch, 2, height, width, generator=generator)
    return torch.stack([1 - 0.6 * noise[:, 0], 0.4 * noise[:, 1] ** 2], dim=1)


def simulate(module, state: torch.Tensor, frames: int, every: int, nine_point: bool, dt: float) -> torch.Tensor:
    batch, _, height, width = state.shape
    output = torch.full((batch, frames, 2, height, width), math.nan)
    how = {"every": every, "nine_point": nine_point, "scale": math.sqrt(dt)}
    workspace = torch.full((module.gray_scott_workspace(output, **how),), math.nan)
    module.gray_scott(state, coefficient_rows(batch, nine_point, dt), output, workspace, threads=1, **how)
    return output


def check(batch, height, width, frames, every, nine_point=FIVE_POINT, dt=1.0):
    state = initial_state(batch, height, width)
    expected = simulate(_C, state, frames, every, nine_point, dt)
    assert expected.isfinite().all()
    assert torch.equal(expected, simulate(_emu, state, frames, every, nine_point, dt))


SMALL = [(3, 3), (3, 128), (4, 4), (5, 17), (8, 5), (16, 8), (32, 33), (64, 64), (33, 41), (17, 12)]


@pytest.mark.parametrize("dt", [1.0, 0.5])
@pytest.mark.parametrize("nine_point", [FIVE_POINT, NINE_POINT])
@pytest.mark.parametrize("height, width", SMALL)
def test_small_grids(height, width, nine_point, dt):
    check(2, height, width, 3, 3, nine_point, dt)


@pytest.mark.parametrize("dt", [1.0, 0.5])
@pytest.mark.parametrize("nine_point", [FIVE_POINT, NINE_POINT])
@pytest.mark.parametrize("height, width", [(100, 100), (128, 128), (96, 128), (127, 126)])
def test_grids_of_one_tile(height, width, nine_point, dt):
    check(1, height, width, 2, 2, nine_point, dt)


@pytest.mark.parametrize("nine_point, dt", [(FIVE_POINT, 1.0), (NINE_POINT, 0.5)])
@pytest.mark.parametrize("height, width", [(130, 140), (200, 131), (20, 240), (260, 6)])
def test_grids_of_several_tiles(height, width, nine_point, dt):
    check(2 if height == 20 else 1, height, width, 1, 10, nine_point, dt)


def test_frames_of_several_tiles():
    check(1, 16, 132, 3, 9)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("height, width, every", [(64, 64, 4), (33, 41, 5), (16, 132, 9)])
def test_the_order_of_the_threads_does_not_matter(monkeypatch, order, height, width, every):
    monkeypatch.setenv("EQFLOW_EMU_ORDER", order)
    check(2, height, width, 1, every)


def test_a_dying_pattern_flushes_subnormals():
    state = torch.full((1, 2, 16, 32), 1e-36)
    state[:, 0] = 1.0
    expected, result = (simulate(module, state, 1, 200, FIVE_POINT, 1.0) for module in (_C, _emu))
    assert torch.equal(expected, result)
    assert (result[:, 0, 1] == 0).all()


def test_memory_without_alignment():
    state = initial_state(1, 16, 32)
    expected = simulate(_C, state, 1, 2, FIVE_POINT, 1.0)
    shifted = torch.empty(state.numel() + 1)[1:].view_as(state).copy_(state)
    assert torch.equal(expected, simulate(_emu, shifted, 1, 2, FIVE_POINT, 1.0))
