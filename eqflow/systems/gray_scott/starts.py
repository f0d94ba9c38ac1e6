"""Initial states by counter: each a function of (seed, sample index, attempt) only, the same bits everywhere.

Only operations that IEEE 754 rounds in one way are used (no library cosine or exponential, no matrix product), so the
split of a batch, the number of threads and the processor cannot change a bit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from eqflow.ops import philox
from eqflow.systems.gray_scott.model import GrayScott, steady_states

SEED_STATE = (0.5, 0.25)  # u and v inside discs, squares and blobs; outside u = 1, v = 0

# Smallest height and width, and what it must hold.
_LEAST = {
    "discs": (15, "discs of radius 7 fit"),
    "squares": (21, "squares of 20 fit"),
    "square": (21, "a square of 20 fits"),
    "blobs": (3, "the Laplacian fits"),
    "fourier": (9, "four waves fit"),
}
INITIAL_KINDS = tuple(_LEAST)

_CHUNK_CELLS = 2**20  # cells made at a time, so that the work stays in the cache


def _words(samples: Tensor, sites: int, seed: int, attempt: int) -> Tensor:
    return philox.words(samples, sites, seed=seed, step=attempt, stream=philox.STREAMS["initial"])


def _seeded(coverage: Tensor) -> Tensor:
    """From (1, 0) where nothing was sown to the seed state where coverage is 1."""
    u, v = SEED_STATE
    return torch.stack([1 - (1 - u) * coverage, v * coverage], 1)


def _discs(words: Tensor, height: int, width: int) -> Tensor:
    radius_word, row_word, column_word = words.view(-1, 5, 3).unbind(2)
    radius = 3 + philox.integers(radius_word, 5)
    row = radius + philox.integers(row_word, height - 2 * radius)
    column = radius + philox.integers(column_word, width - 2 * radius)
    offset = torch.arange(-6, 7, device=words.device)
    down, right = (part.reshape(-1) for part in torch.meshgrid(offset, offset, indexing="ij"))
    inside = down**2 + right**2 < radius[..., None] ** 2  # [batch, 5, 169]
    cells = row[..., None] * width + column[..., None] + inside * (down * width + right)
    coverage = torch.zeros((len(words), height * width), device=words.device)
    return _seeded(coverage.scatter_(1, cells.flatten(1), 1.0).view(-1, height, width))


def _squares(words: Tensor, height: int, width: int) -> Tensor:
    count = 1 + philox.integers(words[:, 0], 8)
    side_word, row_word, column_word = words[:, 1:].view(-1, 8, 3).unbind(2)
    side = 6 + philox.integers(side_word, 15)
    side = side * (torch.arange(8, device=words.device) < count[:, None])
    covered = torch.zeros((len(words), height, width), dtype=torch.bool, device=words.device)
    bands = []
    for word, length in ((row_word, height), (column_word, width)):
        place = torch.arange(length, device=words.device) - philox.integers(word, length)[..., None]
        bands.append(place % length < side[..., None])  # [batch, 8, length]: a square may cross the edge of the grid
    for rows, columns in zip(bands[0].unbind(1), bands[1].unbind(1), strict=True):
        covered |= rows[:, :, None] & columns[:, None, :]
    return _seeded(covered.float())


def _square(words: Tensor, height: int, width: int) -> Tensor:
    state = _seeded(torch.zeros((len(words), height, width), device=words.device))
    top, left = (height - 20) // 2, (width - 20) // 2
    noise = philox.unit_interval(words).view(-1, 2, 20, 20) - 0.5
    seeds = torch.tensor(SEED_STATE, device=words.device).view(2, 1, 1)
    state[:, :, top : top + 20, left : left + 20] = seeds * (1 + 0.4 * noise.float())
    return state


def _exp(x: Tensor) -> Tensor:
    """exp of float64 numbers in [-40, 0] from products and sums alone."""
    x = x / 1024
    result = torch.ones_like(x)
    for order in range(9, 0, -1):
        result = 1 + result * x / order
    for _ in range(10):
        result = result * result
    return result


def _cos_turns(turns: Tensor) -> Tensor:
    """cos(2 pi t) of float64 numbers from products and sums alone."""
    square = (2 * math.pi * (turns - turns.round())) ** 2
    result = torch.ones_like(square)
    for order in range(30, 0, -2):
        result = 1 - result * square / (order * (order - 1))
    return result


def _blobs(words: Tensor, height: int, width: int) -> Tensor:
    count = 10 + philox.integers(words[:, 0], 91)
    uniform = philox.unit_interval(words[:, 1:]).view(-1, 100, 3)
    deviation = 2 + 4 * uniform[..., 2]
    profiles = []
    for axis, length in enumerate((height, width)):
        distance = (torch.arange(length, device=words.device) - length * uniform[..., axis, None]).abs()
        distance = torch.minimum(distance, length - distance) / deviation[..., None]
        profiles.append(_exp((-0.5 * distance * distance).clamp_min(-40)).float())  # [batch, 100, length]
    profiles[0] *= (torch.arange(100, device=words.device) < count[:, None])[..., None]
    coverage = torch.zeros((len(words), height, width), device=words.device)
    for blob in range(int(count.max())):
        coverage += profiles[0][:, blob, :, None] * profiles[1][:, blob, None, :]
    return _seeded(coverage.clamp_max(1))


def _fourier(words: Tensor, height: int, width: int, base: Tensor) -> Tensor:
    wave_word, phase_word = words.view(-1, 2, 16, 2).unbind(3)
    index = philox.integers(wave_word, 80)
    index = index + (index >= 40)  # leaves out the mean
    phase = philox.unit_interval(phase_word)[..., None]
    angles = []
    for waves, length in ((index // 9 - 4, height), (index % 9 - 4, width)):
        angles.append((waves[..., None] * torch.arange(length, device=words.device) % length).double() / length)
    rows, columns = angles[0] + phase, angles[1]
    tables = [[_cos_turns(angle - shift).float() for shift in (0, 0.25)] for angle in (rows, columns)]
    series = torch.zeros((len(words), 2, height, width), device=words.device)
    for wave in range(16):
        (cos_row, sin_row), (cos_column, sin_column) = ([part[:, :, wave] for part in table] for table in tables)
        series += cos_row[..., :, None] * cos_column[..., None, :]
        series -= sin_row[..., :, None] * sin_column[..., None, :]
    # 16 cosines have the variance 8: the relative deviation from the base is 0.1.
    return (base[..., None, None] * (1 + 0.1 / math.sqrt(8) * series)).clamp(0, 1)


def _base(parameters: GrayScott) -> tuple[float, float]:
    states = steady_states(parameters.feed, parameters.kill).tolist()
    return tuple(states[1]) if len(states) > 1 else SEED_STATE


def check_initial(kind: str, height: int, width: int) -> None:
    """Raise a ValueError if there is no such start or if the grid is too small for it."""
    if kind not in _LEAST:
        raise ValueError(f"expected a start among {', '.join(INITIAL_KINDS)}, got {kind!r}")
    least, what = _LEAST[kind]
    if min(height, width) < least:
        raise ValueError(
            f"the start {kind!r} needs at least {least} x {least} cells so that {what}, got {height} x {width}: "
            "take a larger grid or another start (blobs fit every grid)"
        )


def initial_state(
    kind: str,
    samples: Tensor,  # [batch], int64: the global index of each sample
    height: int,
    width: int,
    *,
    seed: int,
    attempt: int = 0,
    parameters: GrayScott | Sequence[GrayScott] | None = None,
) -> Tensor:
    """Starting states (u, v), a function of (seed, sample index, attempt) only.

    * "discs": the paper's protocol. 5 discs, radius uniform in 3 .. 7, centre uniform in [r, N - r) on each axis;
      cells with d^2 < r^2 get u = 0.5, v = 0.25, the others u = 1, v = 0.
    * "squares": 1 to 8 squares of 6 to 20 cells anywhere on the torus, with the same values.
    * "square": one 20 x 20 square in the centre, with the same values and uniform noise of +-20%, without which it
      dies of its symmetry.
    * "blobs": 10 to 100 Gaussians of standard deviation 2 to 6 cells anywhere on the torus; their sum, cut at 1, leads
      from (1, 0) to (0.5, 0.25).
    * "fourier": 16 random waves a field, wave numbers -4 .. 4 on both axes, of 10% standard deviation together, around
      the homogeneous state that can carry patterns; where there is none, around (0.5, 0.25). Cut to [0, 1].

    Args:
        kind: one of `INITIAL_KINDS`.
        samples: [batch], int64 below 2^32. The result is on its device.
        height, width: size of the grid.
        seed: key, in [0, 2^64).
        attempt: 0, or the number of the redraw.
        parameters: needed by "fourier": one system for all samples, or one per sample.

    Returns:
        float32 tensor [batch, 2, height, width].

    Raises:
        ValueError: no such start, or the grid is too small for it.

    Example:
        >>> initial_state("discs", torch.arange(4), 64, 64, seed=0).shape
        torch.Size([4, 2, 64, 64])
    """
    check_initial(kind, height, width)
    if not 0 <= seed < 2**64:
        raise ValueError(f"expected seed in [0, 2^64), got {seed}")
    if kind == "fourier":
        if parameters is None:
            raise ValueError("the start 'fourier' needs parameters: pass a GrayScott, or one per sample")
        systems = [parameters] * len(samples) if isinstance(parameters, GrayScott) else list(parameters)
        if len(systems) != len(samples):
            raise ValueError(f"expected one system per sample, {len(samples)}, got {len(systems)}")
        base = torch.tensor([_base(system) for system in systems], device=samples.device).view(-1, 2)
    state = torch.empty((len(samples), 2, height, width), device=samples.device)
    sites = {"discs": 15, "squares": 25, "square": 800, "blobs": 301, "fourier": 64}[kind]
    make = {"discs": _discs, "squares": _squares, "square": _square, "blobs": _blobs, "fourier": _fourier}[kind]
    chunk = max(1, _CHUNK_CELLS // (height * width))
    for begin in range(0, len(samples), chunk):
        part = slice(begin, begin + chunk)
        words = _words(samples[part], sites, seed, attempt)
        state[part] = make(words, height, width, *((base[part],) if kind == "fourier" else ()))
    return state
