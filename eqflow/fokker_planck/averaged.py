"""Scores of points under Gaussian kernels, and the residual that smoothing does not bias."""

from __future__ import annotations

import torch
from torch import Tensor

from eqflow.fokker_planck.model import Model
from eqflow.fokker_planck.residual import LinearResidual
from eqflow.score import KernelScore


def kernel_score(
    probes: Tensor,  # [n, dimension]
    points: Tensor,  # [points, dimension]
    bandwidth: float,
    *,
    own: Tensor | None = None,  # [n], int64
) -> tuple[Tensor, Tensor]:
    """Score and its divergence of the density of Gaussian kernels around points.

    Args:
        probes: where.
        points: the data; float32 is faster.
        bandwidth: standard deviation h of the kernels.
        own: which point each probe is, to be left out; None: the probes are no points.

    Returns:
        score [n, dimension], divergence [n].

    Example:
        >>> kernel_score(torch.tensor([[2.0]]), torch.tensor([[0.0]]), 2.0)
        (tensor([[-0.5000]]), tensor([-0.2500]))
    """
    kernel, unit = _kernel(points, bandwidth, own)
    state = probes * unit
    return kernel(state, own) * unit, kernel.divergence(state, own) * unit**2


def _kernel(points: Tensor, bandwidth: float, own: Tensor | None) -> tuple[KernelScore, float]:
    """The score of points / h at alpha = 1/2, whose states are probes times the unit."""
    if not bandwidth > 0:
        raise ValueError(f"expected a positive bandwidth, got {bandwidth}")
    self_term = "include" if own is None else "exclude"
    return KernelScore(points / bandwidth, 0.5, self_term=self_term), 0.5**0.5 / bandwidth


def averaged_form(
    model: Model,
    probes: Tensor,  # [n, dimension]
    points: Tensor,  # [points, dimension]
    bandwidth: float,
    *,
    own: Tensor | None = None,  # [n], int64
) -> LinearResidual:
    """r of a steady state with drift, diffusion and growth averaged over the points near each probe.

    With w_i(x) the weights of the kernels at x,

        r = -sum of w_i (f(X_i) . (x - X_i) / h^2 + D(X_i) : ((x - X_i)(x - X_i)^T / h^4 - 1 / h^2) + g(X_i))

    As the smoothed density is steady under the averaged drift, smoothing makes no bias; no derivative of f is needed.
    It is the weak form with a bump at every probe as test function.

    Args:
        model: what is known and unknown.
        probes: where; best not among the points.
        points: the data; float32 is faster.
        bandwidth: standard deviation h of the kernels; 2 to 3 times that of the likeliest density is best.
        own: which point each probe is, to be left out.

    Raises:
        ValueError: an argument is wrong.
    """
    kernel, unit = _kernel(points, bandwidth, own)
    centre = points.double().mean(0)
    places, about = points.double() - centre, probes.double() - centre

    def smooth(values: Tensor) -> Tensor:
        return kernel.smooth(probes * unit, values.to(points), own).double()

    def transport(drift: Tensor) -> Tensor:  # [points, k, dimension] -> [n, k]
        number = drift.shape[1]
        mean = smooth(torch.cat([drift.flatten(1), torch.einsum("nkc,nc->nk", drift, places)], 1))
        return (
            torch.einsum("nkc,nc->nk", mean[:, :-number].view(len(probes), number, -1), about) - mean[:, -number:]
        ) / bandwidth**2

    def spread(part) -> Tensor:
        matrix = part(points.double()).expand(len(points), -1, -1)
        d = matrix.shape[1]
        pulled = torch.einsum("ncd,nd->nc", matrix, places)
        mean = smooth(torch.cat([matrix.flatten(1), pulled, (pulled * places).sum(1, keepdim=True)], 1))
        matrix, pulled, square = mean[:, : d * d].view(-1, d, d), mean[:, d * d : -1], mean[:, -1]
        form = torch.einsum("nc,ncd,nd->n", about, matrix, about) - 2 * (about * pulled).sum(1) + square
        return form / bandwidth**4 - matrix.diagonal(dim1=1, dim2=2).sum(1) / bandwidth**2

    data = points.double()
    columns, offset = [], torch.zeros(len(probes), dtype=torch.float64, device=probes.device)
    if model.features is not None:
        features = model.features(data, 0.0)
        columns.append(transport(torch.einsum("kcl,nl->nkc", model.placement.to(features), features)))
    if model.known is not None:
        offset = offset + transport(model.known(data, 0.0)[:, None])[:, 0]
    columns += [spread(part)[:, None] for part in model.unknown_diffusion]
    if model.diffusion is not None:
        offset = offset + spread(model.diffusion)
    if model.growth is not None:
        terms = model.growth(data, 0.0)
        columns.append(smooth(terms - terms.mean(0)))
    if model.known_growth is not None:
        rate = model.known_growth(data, 0.0)
        offset = offset + smooth((rate - rate.mean())[:, None])[:, 0]
    return LinearResidual(model.names, -torch.cat(columns, 1), -offset)
