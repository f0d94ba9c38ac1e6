"""The score of a noised cloud of points in Triton: eqflow/ops/kernel_score.py holds the contract.

Two passes over the points, first for the largest exponent of each query and then for the sums: a tile of points by
queries cannot branch on a new maximum as kernels/kernel_score.cu does. Lanes are queries, so nothing is reduced before
the end. Sums are float32 within a stretch of points and float64 beyond.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

# A tile of one program, and the tiles whose sums are kept in float32.
_POINTS, _QUERIES, _STRETCH = 8, 64, 64
_INTERPRETER_POINTS = 64  # the interpreter pays for each operation of each program, not for each number
_COLUMNS = 4  # of one program


@triton.jit
def exponents(places, table, log_weights, own, query, point, queries, points, columns, dimension):
    """log2 weight - |place - point|^2, [POINTS, QUERIES]; -infinity for points that do not count."""
    if log_weights is not None:
        start = tl.load(log_weights + point, mask=point < points, other=-float("inf"))
    else:
        start = tl.where(point < points, 0.0, -float("inf"))
    exponent = start[:, None] + tl.zeros((1, query.shape[0]), tl.float32)
    for k in range(dimension):
        y = tl.load(places + query * dimension + k, mask=query < queries, other=0.0)
        x = tl.load(table + point * columns + k, mask=point < points, other=0.0)
        away = y[None, :] - x[:, None]
        exponent = tl.fma(-away, away, exponent)
    return tl.where(point[:, None] == own[None, :], -float("inf"), exponent)


@triton.jit(do_not_specialize=["queries", "points", "scale"])
def kernel_score_kernel(
    places,  # [queries, dimension]
    table,  # [points, columns]
    log_weights,  # [points], or None
    excluded,  # [queries], int64, or None
    score,  # [queries, dimension]
    log_sum,  # [queries]
    smoothed,  # [queries, columns - dimension], or None
    queries: tl.int64,
    points: tl.int64,
    dimension: tl.int32,
    columns: tl.int32,
    scale: tl.float32,
    POINTS: tl.constexpr,
    QUERIES: tl.constexpr,
    COLUMNS: tl.constexpr,
    STRETCH: tl.constexpr,
):
    """COLUMNS sums of QUERIES queries over all points."""
    query = tl.program_id(0).to(tl.int64) * QUERIES + tl.arange(0, QUERIES)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    lane = tl.arange(0, POINTS).to(tl.int64)
    own = query * 0 - 1  # no point
    if excluded is not None:
        own = tl.load(excluded + query, mask=query < queries, other=-1)

    largest = tl.full((POINTS, QUERIES), -float("inf"), tl.float32)
    for first in range(0, points, POINTS):
        exponent = exponents(places, table, log_weights, own, query, first + lane, queries, points, columns, dimension)
        largest = tl.maximum(largest, exponent)
    base = tl.max(largest, 0)
    base = tl.where(base == -float("inf"), 0.0, base)

    weights = tl.zeros((QUERIES,), tl.float64)
    sums = tl.zeros((COLUMNS, QUERIES), tl.float64)
    for stretch in range(0, points, POINTS * STRETCH):
        part_weights = tl.zeros((POINTS, QUERIES), tl.float32)
        part = tl.zeros((COLUMNS, POINTS, QUERIES), tl.float32)
        for tile in range(STRETCH):
            point = stretch + tile * POINTS + lane
            exponent = exponents(places, table, log_weights, own, query, point, queries, points, columns, dimension)
            weight = tl.exp2(exponent - base[None, :])
            at = table + point[None, :] * columns + column[:, None]
            number = tl.load(at, mask=(point < points)[None, :] & (column < columns)[:, None], other=0.0)
            part_weights += weight
            part += number[:, :, None] * weight[None, :, :]
        weights += tl.sum(part_weights.to(tl.float64), 0)
        sums += tl.sum(part.to(tl.float64), 1)

    mean = (sums / weights[None, :]).to(tl.float32)
    inside = (query < queries)[None, :]
    coordinate = column[:, None] < dimension
    at = query[None, :] * dimension + column[:, None]
    y = tl.load(places + at, mask=inside & coordinate, other=0.0)
    tl.store(score + at, scale * (mean - y), mask=inside & coordinate)
    if smoothed is not None:
        beyond = (column[:, None] >= dimension) & (column[:, None] < columns)
        at = query[None, :] * (columns - dimension) + column[:, None] - dimension
        tl.store(smoothed + at, mean, mask=inside & beyond)
    if tl.program_id(1) == 0:
        tl.store(log_sum + query, 0.6931471805599453 * (tl.log2(weights.to(tl.float32)) + base), mask=query < queries)


def kernel_score(
    places: Tensor,  # [queries, dimension], float32
    table: Tensor,  # [points, columns]: the place of a point, then its values
    log_weights: Tensor | None,  # [points], to base 2
    excluded: Tensor | None,  # [queries], int64
    score: Tensor,  # [queries, dimension]
    log_sum: Tensor,  # [queries]
    smoothed: Tensor | None,  # [queries, columns - dimension]
    scale: float,
) -> None:
    """Fill score, log_sum and smoothed."""
    (queries, dimension), (points, columns) = places.shape, table.shape
    tile = _INTERPRETER_POINTS if places.is_cpu else _POINTS
    stretch = min(_STRETCH, triton.cdiv(points, tile)) if places.is_cpu else _STRETCH
    grid = (triton.cdiv(queries, _QUERIES), triton.cdiv(columns, _COLUMNS))
    with torch.cuda.device_of(places):
        kernel_score_kernel[grid](
            places,
            table,
            log_weights,
            excluded,
            score,
            log_sum,
            smoothed,
            queries,
            points,
            dimension,
            columns,
            scale,
            POINTS=tile,
            QUERIES=_QUERIES,
            COLUMNS=_COLUMNS,
            STRETCH=stretch,
            enable_fp_fusion=False,
        )
