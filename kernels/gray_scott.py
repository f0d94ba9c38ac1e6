"""Gray-Scott in Triton, one step a launch: csrc/stencil.h holds the arithmetic, eqflow/ops/gray_scott.py the contract.

Triton has no neighbours inside a register tile, so every step passes through global memory (or the second-level cache).
That makes this the portable path and a second opinion; kernels/gray_scott.cu keeps the state in registers. Nor has
Triton a switch that flushes subnormals, so fields that die out differ from the other kernels below 1.2e-38.
"""

from collections.abc import Callable

import torch
import triton
import triton.language as tl
from torch import Tensor

# Cells of one program. The interpreter pays for each operation of each program, not for each cell.
_BLOCK, _INTERPRETER_BLOCK = 512, 4096
_PERIOD = 8  # of the dithered centre coefficients; even, so that a whole period ends in the buffer it began in


@triton.jit
def neighbour_sum(field, north, row, south, west, x, east, mask, NINE_POINT: tl.constexpr):
    """Sum of the neighbours over the weight of an edge. `north`, `row`, `south` are where the three rows begin."""
    n = tl.load(field + (north + x), mask=mask)
    s = tl.load(field + (south + x), mask=mask)
    w = tl.load(field + (row + west), mask=mask)
    e = tl.load(field + (row + east), mask=mask)
    if NINE_POINT:
        sum_west = tl.load(field + (north + west), mask=mask) + tl.load(field + (south + west), mask=mask)
        sum_east = tl.load(field + (north + east), mask=mask) + tl.load(field + (south + east), mask=mask)
        return tl.fma(sum_west + sum_east, 0.25, (n + s) + (w + e))
    return (n + e) + (w + s)


@triton.jit(do_not_specialize=["step", "root"])
def gray_scott_step(
    state,  # [batch, 2, height, width]: 1 - u and v, both times `root`
    state_next,
    coefficients,  # [batch, 8], the rows of GrayScottCoefficients in csrc/kernels.h
    height: tl.int32,
    width: tl.int32,
    step: tl.int32,
    root: tl.float32,
    NINE_POINT: tl.constexpr,
    SCALED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One step of BLOCK consecutive cells of one sample. A flat index: a 2-D tile would go through shared memory."""
    area = height * width
    blocks = tl.cdiv(area, BLOCK)
    sample = (tl.program_id(0) // blocks).to(tl.int64)
    cell = tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)
    mask = cell < area

    y = cell // width
    row = y * width
    x = cell - row
    north, south = tl.where(y == 0, area, row) - width, tl.where(y == height - 1, 0, row + width)
    west, east = tl.where(x == 0, width, x) - 1, tl.where(x == width - 1, 0, x + 1)

    c = coefficients + sample * 8
    high_u, high_v = (tl.load(c + 6).to(tl.int32) >> step) & 1, (tl.load(c + 7).to(tl.int32) >> step) & 1
    a, b = tl.load(c + 2 + high_u), tl.load(c + 4 + high_v)

    at_w = state + sample * 2 * area
    at_v = at_w + area
    w, v = tl.load(at_w + cell, mask=mask), tl.load(at_v + cell, mask=mask)
    sum_w = neighbour_sum(at_w, north, row, south, west, x, east, mask, NINE_POINT)
    sum_v = neighbour_sum(at_v, north, row, south, west, x, east, mask, NINE_POINT)
    r = ((root - w) * v if SCALED else tl.fma(-w, v, v)) * v
    to = state_next + sample * 2 * area + cell
    tl.store(to, tl.fma(sum_w, tl.load(c), tl.fma(w, a, r)), mask=mask)
    tl.store(to + area, tl.fma(sum_v, tl.load(c + 1), tl.fma(v, b, r)), mask=mask)


def _worth_recording(state: Tensor, every: int, steps: int) -> bool:
    """Whether a CUDA graph of one period pays: a launch costs more than a step of a small batch."""
    return state.is_cuda and every >= _PERIOD and steps >= 256 and not torch.cuda.is_current_stream_capturing()


def _recorded(run: Callable[[], None]) -> Callable[[], None]:
    """The launches of `run` as one CUDA graph."""
    run()  # loads the kernel, which a capture may not do
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=torch.cuda.Stream(), capture_error_mode="thread_local"):
        run()
    return graph.replay


def gray_scott(
    state: Tensor,  # [batch, 2, height, width], float32, contiguous
    coefficients: Tensor,  # [batch, 8], float32, contiguous
    frames: Tensor,  # [batch, count, 2, height, width]: filled
    every: int,
    nine_point: bool,
    scale: float,
) -> None:
    """Fill `frames` with the states after every, 2 every, ... steps; `scale` is sqrt(dt).

    Raises:
        TypeError: the state is not float32.
        ValueError: the grid has 2^31 cells or more.
    """
    batch, _, height, width = state.shape
    if state.dtype != torch.float32:
        raise TypeError(
            f"expected a float32 state, got {state.dtype}: the Triton kernel computes in float32. Use state.float(), "
            "or backend='reference' (or 'native' on the CPU) for float64"
        )
    area, steps = height * width, frames.shape[1] * every
    if area >= 2**31 - _INTERPRETER_BLOCK:
        raise ValueError(f"expected fewer than 2^31 cells a sample, got {height} x {width}: use another backend")
    block = min(triton.next_power_of_2(area), _INTERPRETER_BLOCK if state.is_cpu else _BLOCK)
    grid = (triton.cdiv(area, block) * batch,)
    buffers = torch.empty_like(state), torch.empty_like(state)

    def advance(first: int, count: int) -> None:
        for step in range(first, first + count):
            gray_scott_step[grid](
                buffers[step % 2],
                buffers[(step + 1) % 2],
                coefficients,
                height,
                width,
                step % _PERIOD,
                scale,
                NINE_POINT=nine_point,
                SCALED=scale != 1,
                BLOCK=block,
                enable_fp_fusion=False,
            )

    with torch.cuda.device_of(state):
        period = None
        if _worth_recording(state, every, steps):
            period = _recorded(lambda: advance(0, _PERIOD))  # before the buffers hold anything
        buffers[0].copy_(state)
        buffers[0][:, 0].neg_().add_(1)
        if scale != 1:
            buffers[0].mul_(scale)
        step = 0
        for index in range(frames.shape[1]):
            while step < (index + 1) * every:
                if period and step % _PERIOD == 0 and step + _PERIOD <= (index + 1) * every:
                    period()
                    step += _PERIOD
                else:
                    advance(step, 1)
                    step += 1
            frame = frames[:, index]
            frame.copy_(buffers[step % 2])
            if scale != 1:
                frame.mul_(1 / scale)
            frame[:, 0].neg_().add_(1)
