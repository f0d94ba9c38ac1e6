"""The exact score of a cloud of points under Gaussian noise, without a temporary of queries times points.

p(y) = sum over i of weight_i N(y; sqrt(alpha) x_i, (1 - alpha) I) / sum of weight_i
w_i(y) = softmax over i of (log weight_i - |y - sqrt(alpha) x_i|^2 / (2 (1 - alpha)))
grad log p(y) = (sum over i of w_i(y) sqrt(alpha) x_i - y) / (1 - alpha)
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad

from eqflow.ops import _backend

_CHUNK = 2**22  # numbers in the largest temporary of the reference


class KernelScores(NamedTuple):
    """What `kernel_score` gives."""

    score: Tensor  # [queries, dimension]: grad log p
    log_density: Tensor  # [queries]: log p
    smoothed: Tensor | None  # [queries, numbers]: the mean of the values given the query


def reference(
    queries: Tensor, points: Tensor, values: Tensor, exclude: Tensor | None, weights: Tensor | None, alpha: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The specification: differences, softmax and weighted sums, for some queries at a time."""
    places, variance = math.sqrt(alpha) * points, 1 - alpha
    log_weights = (points.new_ones(len(points)) if weights is None else weights).log()
    normaliser = points.shape[1] / 2 * math.log(2 * math.pi * variance)
    parts = []
    for rows in torch.arange(len(queries), device=queries.device).split(max(1, _CHUNK // points.numel())):
        away, prior = places - queries[rows, None], log_weights.expand(len(rows), -1)
        if exclude is not None:
            prior = prior.scatter(1, exclude[rows, None], -math.inf)
        exponent = prior - away.square().sum(-1) / (2 * variance)
        share = exponent.softmax(1)
        log_density = exponent.logsumexp(1) - prior.logsumexp(1) - normaliser
        parts.append((torch.einsum("qn,qnd->qd", share, away) / variance, log_density, share @ values))
    score, log_density, smoothed = (torch.cat(part) for part in zip(*parts, strict=True))
    return score, log_density, smoothed


def _launch(queries, points, values, exclude, weights, alpha, backend) -> tuple[Tensor, Tensor, Tensor]:
    """The kernels, which see the points about their centre and in units where log2 of a weight is -|y - x|^2."""
    variance = 1 - alpha
    unit = math.sqrt(math.log2(math.e) / (2 * variance))
    centre = points.double().mean(0)
    places = ((queries.double() - math.sqrt(alpha) * centre) * unit).float()
    table = torch.cat([((points.double() - centre) * (math.sqrt(alpha) * unit)).float(), values], 1)
    log_weights = None if weights is None else weights.log2()
    score, log_sum = torch.empty_like(places), places.new_empty(len(places))
    smoothed = places.new_empty(len(places), values.shape[1])
    means = smoothed if smoothed.shape[1] else None
    arguments = (places, table, log_weights, exclude, score, log_sum, means, 1 / (unit * variance))
    if backend == "native":
        _backend.native_module().kernel_score(*arguments, torch.get_num_threads())
    else:
        _backend.triton_kernels("kernel_score").kernel_score(*arguments)
    mass = torch.full((), len(points), dtype=torch.float64, device=points.device)
    if weights is not None:
        mass = weights.double().sum()
    if exclude is not None:
        mass = mass - (1.0 if weights is None else weights.double()[exclude])
    normaliser = mass.log() + points.shape[1] / 2 * math.log(2 * math.pi * variance)
    return score, (log_sum - normaliser).float(), smoothed


torch.library.define(
    "eqflow::kernel_score",
    "(Tensor queries, Tensor points, Tensor values, Tensor? exclude, Tensor? weights, float alpha, str backend)"
    " -> (Tensor, Tensor, Tensor)",
    tags=[torch.Tag.pt2_compliant_tag],
)


def _run(queries, points, values, exclude, weights, alpha, backend):
    backend = _backend.choose(backend, queries.device)
    arguments = [None if a is None else a.contiguous() for a in (queries, points, values, exclude, weights)]
    if backend == "reference" and len(queries):
        return reference(*arguments, alpha)
    if len(queries):
        return _launch(*arguments, alpha, backend)
    return queries.new_empty(queries.shape), queries.new_empty(0), queries.new_empty(0, values.shape[1])


for _device in ("CPU", "CUDA"):
    torch.library.impl("eqflow::kernel_score", _device, _run)


@torch.library.register_fake("eqflow::kernel_score")
def _(queries, points, values, exclude, weights, alpha, backend):
    count, dimension = queries.shape
    return (
        queries.new_empty((count, dimension)),
        queries.new_empty((count,)),
        queries.new_empty((count, values.shape[1])),
    )


def _check_tensors(queries: Tensor, points: Tensor, exclude, weights, values) -> None:
    for name, value in {"queries": queries, "points": points}.items():
        if not isinstance(value, Tensor):
            raise TypeError(f"expected {name} as a torch.Tensor, got {type(value).__name__}: use torch.as_tensor")
        if value.ndim != 2:
            raise ValueError(f"expected {name} [number, dimension], got {list(value.shape)}: use {name}.flatten(1)")
    if not points.numel():
        raise ValueError(f"expected at least one point of at least one number, got points {list(points.shape)}")
    if queries.shape[1] != points.shape[1]:
        raise ValueError(
            f"expected queries and points of one dimension, got {queries.shape[1]} and {points.shape[1]} numbers"
        )
    if queries.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"expected float32 or float64 queries, got {queries.dtype}: use queries.float()")
    tensors = {"queries": queries, "points": points}
    for name, value, count, rank in (
        ("exclude", exclude, len(queries), 1),
        ("weights", weights, len(points), 1),
        ("values", values, len(points), 2),
    ):
        if value is None:
            continue
        tensors[name] = value
        if value.ndim != rank or len(value) != count:
            raise ValueError(f"expected {name} [{count}{', numbers' * (rank == 2)}], got {list(value.shape)}")
    for name, value in tensors.items():
        dtype = torch.int64 if name == "exclude" else queries.dtype
        if value.dtype != dtype or value.device != queries.device:
            raise TypeError(
                f"expected {name} as {dtype} on {queries.device}, got {value.dtype} on {value.device}: "
                f"use {name}.to(...)"
            )
        if value.requires_grad or forward_ad.unpack_dual(value).tangent is not None:
            raise NotImplementedError(
                f"kernel_score has no derivative: pass {name}.detach(), or differentiate the reference"
            )
    if exclude is not None and len(points) < 2:
        raise ValueError("expected two points or more where each query leaves one out, got one")


def _check_numbers(queries: Tensor, points: Tensor, exclude, weights, values) -> None:
    for name, value in {"queries": queries, "points": points, "values": values}.items():
        if value is not None and not value.isfinite().all():
            row = int((~value.isfinite().all(1)).nonzero()[0])
            raise ValueError(f"expected finite {name}, but row {row} has NaN or infinite numbers: mend the input")
    if weights is not None and not (weights.isfinite().all() and (weights >= 0).all() and weights.sum() > 0):
        raise ValueError("expected finite weights from 0 up with a positive sum")
    if exclude is not None and len(exclude):
        low, high = int(exclude.min()), int(exclude.max())
        if low < 0 or high >= len(points):
            raise ValueError(f"expected exclude in [0, {len(points) - 1}], an index of points, got {low} to {high}")


def kernel_score(
    queries: Tensor,  # [queries, dimension]
    points: Tensor,  # [points, dimension]
    *,
    alpha: float,
    exclude: Tensor | None = None,  # [queries], int64
    weights: Tensor | None = None,  # [points]
    values: Tensor | None = None,  # [points, numbers]
    backend: str = "auto",
) -> KernelScores:
    """Score and log density of points under Gaussian noise, and the mean of values given the noised point.

        p(y) = mean over i of N(y; sqrt(alpha) x_i, (1 - alpha) I)
        w_i(y) = softmax over i of -|y - sqrt(alpha) x_i|^2 / (2 (1 - alpha))
        score = (sum of w_i sqrt(alpha) x_i - y) / (1 - alpha),    smoothed = sum of w_i values_i

    Memory is that of input and output; the kernels never store a number for each pair. They take differences in
    float32 about the centre of the points, subtract a running maximum before the exponential, and add up in float64
    beyond each block of points: a few 1e-6 of the largest score from the exact one. On the CPU the bits do not depend
    on the instruction set, the number of threads or the split of the queries, and bad numbers are found; on a GPU a NaN
    in gives a NaN out.

    Args:
        queries: y, float32; or float64, which the reference serves.
        points: x_i, of the type of the queries.
        alpha: squared coefficient of the signal, in (0, 1).
        exclude: the index of the point that each query leaves out: its own, for a held-out estimate.
        weights: of the points, not negative; None: equal.
        values: numbers at the points, to be averaged.
        backend: "auto", "reference", "native" or "triton".

    Returns:
        KernelScores(score, log_density, smoothed); `smoothed` is None without values.

    Raises:
        TypeError, ValueError: an argument is wrong.
        BackendError: the backend is not available here.
        NotImplementedError: a derivative was asked for.

    Example:
        >>> points = torch.tensor([[-1.0], [1.0]])
        >>> kernel_score(torch.zeros(1, 1), points, alpha=0.75, values=points).smoothed
        tensor([[0.]])
    """
    if not 0 < alpha < 1:
        raise ValueError(f"expected alpha in (0, 1), the squared coefficient of the signal, got {alpha}")
    _check_tensors(queries, points, exclude, weights, values)
    if not queries.is_cuda:
        _check_numbers(queries, points, exclude, weights, values)
    if queries.dtype == torch.float64:
        if backend not in ("auto", "reference"):
            raise TypeError(f"expected float32 queries for backend {backend!r}, got float64: use backend='reference'")
        backend = "reference"
    averaged = points.new_empty(len(points), 0) if values is None else values
    score, log_density, smoothed = torch.ops.eqflow.kernel_score.default(
        queries, points, averaged, exclude, weights, alpha, backend
    )
    return KernelScores(score, log_density, None if values is None else smoothed)
