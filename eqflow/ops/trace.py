"""The divergence of any differentiable field, exactly or by probes, with one forward tangent a probe.

    div f(x) = trace of J,   J = df/dx,   from products z^T J z:
    exact      z = every basis vector: as many tangents as a row has numbers
    probes     mean over k random z with E[z z^T] = I: variance 2 / k times |E|_F^2 (Gaussian) or |E|_F^2 - sum of
               E_ii^2 (Rademacher), with E = (J + J^T) / 2
    coloured   fields on a periodic grid with J_pq = 0 beyond a distance: z = 1 on pixels that do not see one another.
               Exact with channels * colours probes, however large the grid

The tangents of all probes go through f as one larger batch, in forward mode, and stay differentiable in the parameters
of f by an ordinary backward pass.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad

from eqflow.ops.divergence import LAWS, draw_probes

METHODS = ("exact", "probes", "coloured")
_CHUNK = 2**16  # numbers of tangents that go through the field at once: more fall out of the cache

Field = Callable[[Tensor], Tensor]


class FieldDivergence(NamedTuple):
    """A field and its divergence."""

    velocity: Tensor  # [batch, ...]: f(x)
    divergence: Tensor  # [batch]


def _dual(x: Tensor, direction: Tensor) -> Tensor:
    with warnings.catch_warnings():
        # On first use PyTorch compiles its forward derivatives in a way that it deprecates itself.
        warnings.filterwarnings("ignore", ".*torch.jit.script", DeprecationWarning)
        return forward_ad.make_dual(x.contiguous(), direction.contiguous())  # of memory of its own


def _push(field: Field, x: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    """f and J z for a batch of states with one direction each."""
    with forward_ad.dual_level():
        output = field(_dual(x, directions))
        if not isinstance(output, Tensor) or output.shape != x.shape:
            got = list(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise ValueError(f"expected a field that keeps the shape {list(x.shape)}, got {got}")
        value, tangent = forward_ad.unpack_dual(output)
    if tangent is None:
        raise ValueError(
            "expected an output that depends on x, got one without a tangent: the field is constant, or detaches x, or "
            "runs an operator without a derivative"
        )
    return value, tangent


def _check_rows(alone: Tensor, value: Tensor) -> None:
    """Batch statistics would make every direction act on all rows at once, and the trace wrong without a sign of it."""
    error, scale = (alone[0] - value[0]).abs().max(), value[0].abs().max()
    if error > 1e-3 * scale:
        raise ValueError(
            f"expected rows that do not see one another, but row 0 alone differs by {float(error):.2g} of "
            f"{float(scale):.2g}: batch statistics must be constants here (module.eval()), and nothing may be random"
        )


def colours(length: int, radius: int) -> Tensor:
    """Colours of a ring of pixels, int64 [length]: two pixels of one colour are more than `radius` apart.

    Blocks of radius + 1 pixels or a little longer fill the ring, and the colour is the place in the block: then equal
    colours are at least one whole block apart. No colouring has fewer colours. For one field z^T J z it is enough that
    pixels of a colour do not see one another; that a third pixel sees both does no harm.

    Example:
        >>> colours(7, 1)
        tensor([0, 1, 0, 1, 0, 1, 2])
    """
    blocks = max(1, length // (radius + 1))
    short, longer = divmod(length, blocks)
    return torch.cat([torch.arange(short + (block >= blocks - longer)) for block in range(blocks)])


def _coloured(x: Tensor, radius: int) -> tuple[Tensor, Tensor]:
    """Ones on each colour of each channel, [probes, channels, height, width], and a pixel to try the locality with."""
    channels, height, width = x.shape[1:]
    rows, columns = (colours(length, radius).to(x.device) for length in (height, width))
    vertical = (rows == torch.arange(int(rows.max()) + 1, device=x.device)[:, None]).to(x)
    horizontal = (columns == torch.arange(int(columns.max()) + 1, device=x.device)[:, None]).to(x)
    masks = torch.einsum("ah,bw->abhw", vertical, horizontal).flatten(0, 1)
    channel = torch.eye(channels, dtype=x.dtype, device=x.device)
    return torch.einsum("cd,mhw->cmdhw", channel, masks).flatten(0, 1)


@torch.no_grad()
def _check_locality(field: Field, x: Tensor, radius: int) -> Tensor:
    """Row 0 of f alone, from a pass that shows how far a pixel is seen."""
    height, width = x.shape[2:]
    pixel = torch.zeros_like(x[:1])
    pixel[..., height // 2, width // 2] = 1
    alone, seen = _push(field, x[:1], pixel)
    away = [(torch.arange(length, device=x.device) - length // 2).abs() for length in (height, width)]
    # On a ring the way round may be shorter.
    away = [torch.minimum(part, length - part) for part, length in zip(away, (height, width), strict=True)]
    far = torch.maximum(away[0][:, None], away[1]) > radius
    strongest = seen.abs().amax((0, 1))
    if (strongest[far] > 1e-6 * strongest.max()).any():
        reach = int(torch.maximum(away[0][:, None], away[1])[strongest > 1e-6 * strongest.max()].max())
        raise ValueError(
            f"expected a field in which a pixel sees as far as radius={radius}, but it sees {reach} pixels far: give "
            "the true radius; attention and group normalisation see everything, and need method='probes'"
        )
    return alone


def _check(x: Tensor, method: str, probes: int, law: str, radius: int | None) -> None:
    if x.ndim < 2 or not x.numel():
        raise ValueError(f"expected x [batch, ...] with at least one row, got {list(x.shape)}")
    if method not in METHODS:
        raise ValueError(f"expected method {', '.join(map(repr, METHODS))}, got {method!r}")
    if law not in LAWS:
        raise ValueError(f"expected law {', '.join(map(repr, LAWS))}, got {law!r}")
    if probes < 1:
        raise ValueError(f"expected probes from 1 up, got {probes}")
    if method != "coloured":
        return
    if x.ndim != 4:
        raise ValueError(f"expected x [batch, channels, height, width] for method 'coloured', got {list(x.shape)}")
    if radius is None or radius < 0:
        raise ValueError(
            f"expected radius for method 'coloured', how many pixels far a pixel is seen, got {radius}: for "
            "convolutions one after another it is the sum of their radii"
        )


def field_divergence(
    field: Field,
    x: Tensor,  # [batch, ...]
    *,
    method: str = "exact",
    probes: int = 1,
    law: str = "gaussian",
    seed: int = 0,
    step: int = 0,
    radius: int | None = None,
) -> FieldDivergence:
    """f(x) and the divergence of f for any function f of independent rows, such as a network.

    Args:
        field: f, [batch, ...] -> the same shape, differentiable in forward mode, as PyTorch's own operators are. A row
            must not see the others, which is checked on row 0.
        x: the states.
        method: "exact", "probes" or "coloured", which is exact for local fields on a periodic grid.
        probes: how many random ones each row gets.
        law: of their numbers, "gaussian" or "rademacher".
        seed: of the random probes, drawn by counter.
        step: of training, so that every step has probes of its own.
        radius: of a coloured field: the largest distance, along an axis, at which a pixel is seen. It is checked on the
            middle pixel of row 0.

    Returns:
        FieldDivergence(velocity, divergence), with gradients where `field` or `x` want them.

    Raises:
        ValueError: an argument is out of range, the rows see one another, or a pixel sees farther than the radius.

    Example:
        >>> field_divergence(lambda x: x**3, torch.tensor([[1.0, 2.0]])).divergence
        tensor([15.])
    """
    _check(x, method, probes, law, radius)
    batch, numbers = len(x), x[0].numel()
    shared = None
    if method == "exact":
        shared = torch.eye(numbers, dtype=x.dtype, device=x.device)
    elif method == "coloured":
        shared = _coloured(x, radius).flatten(1)
    if shared is None:
        drawn = draw_probes(1, batch, probes, numbers, law=law, seed=seed, step=step, device=x.device)
        directions, count = drawn[0].to(x).transpose(0, 1), probes  # [probes, batch, numbers]
    else:
        directions, count = shared[:, None], len(shared)
    total, value, size = 0.0, None, max(1, _CHUNK // x.numel())
    for part in directions.split(size):
        copies = len(part)
        some = part.expand(copies, batch, numbers).reshape(copies * batch, *x.shape[1:])
        states = x.expand(copies, *x.shape).flatten(0, 1)
        values, pushed = _push(field, states, some)
        value = values[:batch] if value is None else value
        total = total + (some * pushed).view(copies, batch, numbers).sum((0, 2))
    if method == "coloured":
        _check_rows(_check_locality(field, x, radius), value)
    elif batch > 1:
        with torch.no_grad():
            _check_rows(field(x[:1]), value)
    return FieldDivergence(value, total / count if method == "probes" else total)
