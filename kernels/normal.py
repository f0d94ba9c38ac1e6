"""Standard normals by counter in Triton: csrc/philox.h has the same bits, eqflow/ops/normal.py the contract."""

import torch
import triton
import triton.language as tl
from torch import Tensor

# Philox counters of one program. The interpreter pays for each operation of each program, not for each number.
_BLOCK, _INTERPRETER_BLOCK = 256, 8192


@triton.jit
def unit_interval(word):
    return ((word >> 9).to(tl.int32).to(tl.float32) + 0.5) * 1.1920928955078125e-07


@triton.jit
def natural_log(x):
    shifted = x.to(tl.uint32, bitcast=True) - 0x3F3504F3
    e = (shifted.to(tl.int32, bitcast=True) >> 23).to(tl.float32)
    m = ((shifted & 0x007FFFFF) + 0x3F3504F3).to(tl.float32, bitcast=True) - 1.0
    p = tl.fma(m, 7.0376836292e-2, -1.1514610310e-1)
    p = tl.fma(p, m, 1.1676998740e-1)
    p = tl.fma(p, m, -1.2420140846e-1)
    p = tl.fma(p, m, 1.4249322787e-1)
    p = tl.fma(p, m, -1.6668057665e-1)
    p = tl.fma(p, m, 2.0000714765e-1)
    p = tl.fma(p, m, -2.4999993993e-1)
    p = tl.fma(p, m, 3.3333331174e-1)
    square = m * m
    y = (p * m) * square
    y = tl.fma(e, -2.12194440e-4, y)
    y = tl.fma(square, -0.5, y)
    return tl.fma(e, 0.693359375, m + y)


@triton.jit
def sine_cosine_of_turn(t):
    q = (4.0 * t + 0.5).to(tl.int32)
    r = tl.fma(q.to(tl.float32), -0.25, t) * 6.283185307179586
    z = r * r
    s = tl.fma(tl.fma(z, -1.9515295891e-4, 8.3321608736e-3), z, -1.6666654611e-1)
    s = tl.fma(s * z, r, r)
    c = tl.fma(tl.fma(z, 2.443315711809948e-5, -1.388731625493765e-3), z, 4.166664568298827e-2)
    c = tl.fma(c * z, z, tl.fma(z, -0.5, 1.0))
    swap = (q & 1) != 0
    even, odd = tl.where(swap, c, s), tl.where(swap, s, c)
    return tl.where((q & 2) != 0, -even, even), tl.where(((q + 1) & 2) != 0, -odd, odd)


@triton.jit
def box_muller(radius_word, angle_word):
    # tl.sqrt may round either way; sqrt_rn is correctly rounded.
    radius = tl.sqrt_rn(-2.0 * natural_log(unit_interval(radius_word)))
    sine, cosine = sine_cosine_of_turn(unit_interval(angle_word))
    return radius * cosine, radius * sine


@triton.jit
def site_words(group, sample, step_low, step_high, seed):
    """The four Philox words of sites 4 group .. 4 group + 3 of one sample; `step_high` carries the stream tag."""
    c0, c1 = group.to(tl.uint32), sample.to(tl.uint32)
    return tl.philox(seed, c0, c1, c0 * 0 + step_low.to(tl.uint32), c0 * 0 + step_high.to(tl.uint32))


@triton.jit
def site_normals(group, sample, step_low, step_high, seed):
    """The standard normals of sites 4 group .. 4 group + 3 of one sample."""
    x, y, z, w = site_words(group, sample, step_low, step_high, seed)
    n0, n1 = box_muller(x, y)
    n2, n3 = box_muller(z, w)
    return n0, n1, n2, n3


@triton.jit(do_not_specialize=["batch", "seed", "step_low", "step_high", "first_sample"])
def normal_kernel(
    output,  # [batch, sites]
    batch: tl.int64,
    sites: tl.int64,
    seed: tl.uint64,
    step_low: tl.uint32,
    step_high: tl.uint32,
    first_sample: tl.int64,
    ROWS: tl.constexpr,
    GROUPS: tl.constexpr,
):
    """ROWS samples by GROUPS counters under one flat index, so that the four lanes join into one store."""
    blocks = tl.cdiv(tl.cdiv(sites, 4), GROUPS)
    first_row = tl.program_id(0) // blocks * ROWS
    first_group = tl.program_id(0) % blocks * GROUPS

    counter = tl.arange(0, ROWS * GROUPS)
    group, sample = first_group + counter % GROUPS, first_sample + first_row + counter // GROUPS
    n0, n1, n2, n3 = site_normals(group, sample, step_low, step_high, seed)
    normals = tl.reshape(tl.join(tl.join(n0, n2), tl.join(n1, n3)), (4 * ROWS * GROUPS,))

    place = tl.arange(0, 4 * ROWS * GROUPS)
    row, site = first_row + place // (4 * GROUPS), 4 * first_group + place % (4 * GROUPS)
    tl.store(output + row * sites + site, normals, mask=(row < batch) & (site < sites))


def normal(
    output: Tensor,  # [batch, sites], float32, contiguous
    seed: int,
    step: int,
    stream: int,
    first_sample: int,
) -> None:
    """Fill `output` with standard normals: the bits of the native kernel, wherever tl.fma rounds once.

    The interpreter of Triton before 3.9 rounds it twice; there some numbers differ by a few units in the last place.
    """
    batch, sites = output.shape
    if not output.numel():
        return
    groups = triton.cdiv(sites, 4)
    block = _INTERPRETER_BLOCK if output.is_cpu else _BLOCK
    columns = min(triton.next_power_of_2(groups), block)
    rows = min(triton.next_power_of_2(batch), block // columns)
    grid = (triton.cdiv(groups, columns) * triton.cdiv(batch, rows),)
    with torch.cuda.device_of(output):
        normal_kernel[grid](
            output,
            batch,
            sites,
            seed,
            step & 0xFFFFFFFF,
            stream << 24 | step >> 32,
            first_sample,
            ROWS=rows,
            GROUPS=columns,
            enable_fp_fusion=False,
        )
