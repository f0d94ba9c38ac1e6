"""The moments of still pictures in Triton: eqflow/ops/field_moments.py holds the contract.

Two kernels take turns on some pictures, as in kernels/field_moments.cu: the first evaluates every field of a picture in
float64 and rounds it to float32, the second multiplies rows by columns. An operator is a table of weights on the pixel
and the two around it. Sums are float32 over a stretch of products and float64 beyond.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

_PIXELS = 256  # of one program
_INTERPRETER_PIXELS = 1024  # the interpreter pays for each operation of each program, not for each number
_COLUMNS, _STRETCH = 4, 16  # columns of one program; products of a lane whose sum is float32
_MEMORY = 2**26  # floats of the fields of all pictures at once
_SQUARED_GRADIENT, _Y_DERIVATIVE = tl.constexpr(3), tl.constexpr(5)  # in the order of OPERATORS


@triton.jit
def fields_kernel(
    pictures,  # [batch, channels, height, width]
    units,  # [batch, channels], to multiply the channels by
    monomials,  # [monomials, 2], int32
    table,  # [of_side, 2], int32: monomial, operator
    weights,  # [operators, 25], float64
    fields,  # [batch, fields, height - 2 margin, width - 2 margin]
    first_field: tl.int32,
    count: tl.int32,  # fields
    channels: tl.int32,
    height: tl.int32,
    width: tl.int32,
    margin: tl.int32,
    PIXELS: tl.constexpr,
):
    """One field of the table on PIXELS pixels of a picture."""
    index, picture = tl.program_id(1), tl.program_id(2).to(tl.int64)
    pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    across = width - 2 * margin
    inside = pixel < (height - 2 * margin) * across
    i, j = pixel // across + margin, pixel % across + margin
    monomial, operator = tl.load(table + 2 * index), tl.load(table + 2 * index + 1)
    along = tl.zeros((PIXELS,), tl.float64)
    beside = tl.zeros((PIXELS,), tl.float64)
    for at in range(25):
        weight = tl.load(weights + operator * 25 + at)
        other = tl.load(weights + _Y_DERIVATIVE * 25 + at)
        other = tl.where(operator == _SQUARED_GRADIENT, other, 0.0)
        if (weight != 0) | (other != 0):
            row = (i + at // 5 - 2 + height) % height
            column = (j + at % 5 - 2 + width) % width
            value = tl.full((PIXELS,), 1.0, tl.float64)
            m = monomial
            while m > 0:
                channel = picture * channels + tl.load(monomials + 2 * m + 1)
                place = (channel * height + row) * width + column
                number = tl.load(pictures + place, mask=inside, other=0.0).to(tl.float64)
                value *= number * tl.load(units + channel).to(tl.float64)
                m = tl.load(monomials + 2 * m)
            along += weight * value
            beside += other * value
    result = tl.where(operator == _SQUARED_GRADIENT, along * along + beside * beside, along)
    place = (picture * count + first_field + index) * ((height - 2 * margin) * across) + pixel
    tl.store(fields + place, result.to(tl.float32), mask=inside)


@triton.jit
def products_kernel(
    fields,  # [batch, row fields + column fields, pixels]
    rows,  # [row_count, 2], int32: two fields, or one and -1
    columns,  # [column_count, 2]
    moments,  # [batch, row_count, column_count], float64
    row_fields: tl.int32,
    column_fields: tl.int32,
    column_count: tl.int32,
    pixels: tl.int32,
    PIXELS: tl.constexpr,
    COLUMNS: tl.constexpr,
    STRETCH: tl.constexpr,
):
    """The moments of one row of a picture and COLUMNS columns."""
    row, picture = tl.program_id(0), tl.program_id(2).to(tl.int64)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    present = column < column_count
    of_rows = fields + picture * (row_fields + column_fields) * pixels
    of_columns = of_rows + row_fields.to(tl.int64) * pixels
    row_first, row_second = tl.load(rows + 2 * row).to(tl.int64), tl.load(rows + 2 * row + 1).to(tl.int64)
    first = tl.load(columns + 2 * column, mask=present, other=0).to(tl.int64)[:, None] * pixels
    second = tl.load(columns + 2 * column + 1, mask=present, other=-1).to(tl.int64)[:, None]
    sums = tl.zeros((COLUMNS,), tl.float64)
    for start in range(0, pixels, PIXELS * STRETCH):
        part = tl.zeros((COLUMNS, PIXELS), tl.float32)
        for tile in range(STRETCH):
            pixel = start + tile * PIXELS + tl.arange(0, PIXELS)
            inside = pixel < pixels
            a = tl.load(of_rows + row_first * pixels + pixel, mask=inside, other=0.0)
            there = pixel < tl.where(row_second >= 0, pixels, 0)
            a *= tl.load(of_rows + row_second * pixels + pixel, mask=there, other=1.0)
            here = inside[None, :] & present[:, None]
            b = tl.load(of_columns + first + pixel[None, :], mask=here, other=0.0)
            b *= tl.load(of_columns + second * pixels + pixel[None, :], mask=here & (second >= 0), other=1.0)
            part += a[None, :] * b
        sums += tl.sum(part.to(tl.float64), 1)
    place = (picture * tl.num_programs(0) + row) * column_count + column
    tl.store(moments + place, sums / pixels, mask=present)


def _weights(nine_point: bool, device: torch.device) -> Tensor:
    """[operators, 25]: of each operator; that of a squared gradient is its slope along a row."""
    edge, corner = (4 / 6, 1 / 6) if nine_point else (1.0, 0.0)
    rows = [[corner, edge, corner], [edge, -4 * (edge + corner), edge], [corner, edge, corner]]
    lap, table = torch.tensor(rows, dtype=torch.float64), torch.zeros(6, 5, 5, dtype=torch.float64)
    table[0, 2, 2] = 1
    table[1, 1:4, 1:4] = lap
    for i in range(3):
        for j in range(3):
            table[2, i : i + 3, j : j + 3] += lap[i, j] * lap
    table[3, 2, 1], table[3, 2, 3] = -0.5, 0.5
    table[4], table[5] = table[3], table[3].T
    return table.flatten(1).to(device)


def field_moments(
    state: Tensor,  # [batch, channels, height, width], float32
    at: Tensor,  # like state
    units: Tensor,  # [batch, channels], to multiply the channels by
    rows: tuple[Tensor, Tensor, Tensor],  # monomials, fields, products of `at`, each int32 [number, 2]
    columns: tuple[Tensor, Tensor, Tensor],  # those of `state`
    moments: Tensor,  # [batch, row products, column products], float64
    margin: int,
    nine_point: bool,
) -> None:
    """Fill moments."""
    _, channels, height, width = state.shape
    pixels = (height - 2 * margin) * (width - 2 * margin)
    fields_of = (len(rows[1]), len(columns[1]))
    weights = _weights(nine_point, state.device)
    block = _INTERPRETER_PIXELS if state.is_cpu else _PIXELS
    stretch = min(_STRETCH, triton.cdiv(pixels, block)) if state.is_cpu else _STRETCH
    at_once = min(len(state), max(1, _MEMORY // (sum(fields_of) * pixels)), 65535)
    fields = state.new_empty((at_once, sum(fields_of), pixels))
    parts = zip(*(tensor.split(at_once) for tensor in (at, state, units, moments)), strict=True)
    with torch.cuda.device_of(state):
        for some_at, some, scales, result in parts:
            for pictures, (monomials, table, _), first in ((some_at, rows, 0), (some, columns, fields_of[0])):
                fields_kernel[triton.cdiv(pixels, block), len(table), len(some)](
                    pictures,
                    scales,
                    monomials,
                    table,
                    weights,
                    fields,
                    first,
                    sum(fields_of),
                    channels,
                    height,
                    width,
                    margin,
                    PIXELS=block,
                    enable_fp_fusion=False,
                )
            products_kernel[result.shape[1], triton.cdiv(result.shape[2], _COLUMNS), len(some)](
                fields,
                rows[2],
                columns[2],
                result,
                *fields_of,
                result.shape[2],
                pixels,
                PIXELS=block,
                COLUMNS=_COLUMNS,
                STRETCH=stretch,
                enable_fp_fusion=False,
            )
