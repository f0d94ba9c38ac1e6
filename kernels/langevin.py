"""A Langevin update in Triton: kernels/langevin.cpp and .cu keep the same order, eqflow/ops/langevin.py the contract.

A program computes one output channel of some pixels of some samples, so its weights are scalars; the inputs that
programs share come from the cache. Triton cannot flush subnormals: numbers below 1.2e-38 differ from the other kernels.
"""

import torch
import triton
import triton.language as tl
from eqflow.kernels.normal import site_normals
from torch import Tensor

# Numbers of one program. The interpreter pays for each operation of each program, not for each number.
_BLOCK, _INTERPRETER_BLOCK = 1024, 8192


@triton.jit
def add_field(total, field, kernel, pixel, height, width, mask, CHANNELS: tl.constexpr, SIZE: tl.constexpr):
    """total + kernel * field; `field` tells where each sample begins, `kernel` where the weights of the output do."""
    y, x, plane = pixel // width, pixel % width, height.to(tl.int64) * width
    for channel in range(CHANNELS):
        for u in range(SIZE):
            for v in range(SIZE):
                if SIZE == 1:
                    source = pixel
                else:  # SIZE times the period: the remainder of a negative number would be negative
                    row = (y + (u - SIZE // 2) + SIZE * height) % height
                    source = row * width + (x + (v - SIZE // 2) + SIZE * width) % width
                value = tl.load(field + channel * plane + source, mask=mask).to(tl.float32)
                weight = tl.load(kernel + (channel * SIZE + u) * SIZE + v)
                total = tl.fma(value, weight, total)
    return total


@triton.jit
def block_normals(row, site, step_low, step_high, seed, WHOLE: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """The normals of COLUMNS sites from `site` on, of ROWS samples from `row` on."""
    if WHOLE:  # a counter serves four pixels in a row
        counter = tl.arange(0, ROWS * COLUMNS // 4)
        groups: tl.constexpr = COLUMNS // 4
        n0, n1, n2, n3 = site_normals(site // 4 + counter % groups, row + counter // groups, step_low, step_high, seed)
        return tl.reshape(tl.join(tl.join(n0, n2), tl.join(n1, n3)), (ROWS * COLUMNS,))
    place = tl.arange(0, ROWS * COLUMNS)
    site += place % COLUMNS
    n0, n1, n2, n3 = site_normals(site // 4, row + place // COLUMNS, step_low, step_high, seed)
    lane = site % 4
    return tl.where(lane < 2, tl.where(lane == 0, n0, n1), tl.where(lane == 2, n2, n3))


@triton.jit(do_not_specialize=["batch", "seed", "step", "first_sample", "noise_scale", "base_scale"])
def langevin_kernel(
    state,  # [batch, CHANNELS, height, width]
    output,  # like the state, or None
    state_kernel,  # [CHANNELS, CHANNELS, SIZE, SIZE]
    output_kernel,
    base,  # like the state, or None
    result,
    noise_scale: tl.float32,
    base_scale: tl.float32,
    batch: tl.int64,
    height: tl.int32,
    width: tl.int32,
    seed: tl.uint64,
    step: tl.int64,
    step_in_memory,  # int64, or None
    first_sample: tl.int64,
    STREAM: tl.constexpr,
    CHANNELS: tl.constexpr,
    SIZE: tl.constexpr,
    NOISY: tl.constexpr,
    WHOLE: tl.constexpr,  # 4 divides height * width
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """ROWS samples by COLUMNS pixels of one output channel, under one flat index."""
    pixels = height * width
    blocks = tl.cdiv(pixels, COLUMNS)
    channel, block = (tl.program_id(0) % CHANNELS).to(tl.int64), tl.program_id(0) // CHANNELS
    first_row, first_pixel = (block // blocks * ROWS).to(tl.int64), block % blocks * COLUMNS
    place = tl.arange(0, ROWS * COLUMNS)
    row, pixel = first_row + place // COLUMNS, first_pixel + place % COLUMNS
    mask = (row < batch) & (pixel < pixels)

    sample = row * CHANNELS * pixels
    here = sample + channel * pixels + pixel
    total = tl.zeros((ROWS * COLUMNS,), tl.float32)
    if base is not None:
        total = base_scale * tl.load(base + here, mask=mask)
    weights = channel * CHANNELS * SIZE * SIZE
    total = add_field(total, state + sample, state_kernel + weights, pixel, height, width, mask, CHANNELS, SIZE)
    if output is not None:
        total = add_field(total, output + sample, output_kernel + weights, pixel, height, width, mask, CHANNELS, SIZE)
    if NOISY:
        if step_in_memory is not None:
            step = tl.load(step_in_memory)
        step_high = (step >> 32) | (STREAM << 24)
        site = channel * pixels + first_pixel
        noise = block_normals(first_sample + first_row, site, step, step_high, seed, WHOLE, ROWS, COLUMNS)
        total = tl.fma(noise, noise_scale, total)
    tl.store(result + here, total, mask=mask)


def langevin(
    state: Tensor,  # [batch, channels, height, width], float32, contiguous
    output: Tensor | None,  # like the state, or bfloat16
    state_kernel: Tensor,  # [channels, channels, 2r + 1, 2r + 1]
    output_kernel: Tensor | None,
    base: Tensor | None,
    result: Tensor,  # like the state: filled
    noise_scale: float,
    base_scale: float,
    seed: int,
    step: int,
    step_in_memory: Tensor | None,  # int64 scalar: read instead of `step`
    stream: int,
    first_sample: int,
) -> None:
    """Fill `result` with base_scale base + A * state + B * output + noise_scale xi.

    The bits of the native kernels, wherever tl.fma rounds once: the interpreter of Triton before 3.9 rounds it twice.

    Raises:
        ValueError: the grid has 2^31 pixels or more.
    """
    batch, channels, height, width = state.shape
    pixels = height * width
    if pixels >= 2**31 - _INTERPRETER_BLOCK:
        raise ValueError(f"expected fewer than 2^31 pixels a sample, got {height} x {width}: use another backend")
    block = _INTERPRETER_BLOCK if state.is_cpu else _BLOCK
    columns = min(triton.next_power_of_2(pixels), block)
    rows = min(triton.next_power_of_2(batch), block // columns)
    grid = (triton.cdiv(pixels, columns) * triton.cdiv(batch, rows) * channels,)
    with torch.cuda.device_of(state):
        langevin_kernel[grid](
            state,
            output,
            state_kernel,
            output_kernel,
            base,
            result,
            noise_scale,
            base_scale,
            batch,
            height,
            width,
            seed,
            step,
            step_in_memory,
            first_sample,
            STREAM=stream,
            CHANNELS=channels,
            SIZE=state_kernel.shape[-1],
            NOISY=noise_scale != 0,
            WHOLE=pixels % 4 == 0,
            ROWS=rows,
            COLUMNS=columns,
            enable_fp_fusion=False,
        )
