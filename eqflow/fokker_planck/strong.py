"""The strong form of the Fokker-Planck equation, pointwise from a score: the loss of the paper, and what mends it.

With s = grad log p and F = f - div D - D s, where the density changes at the rate d(log p)/dt and grows by g,

    r = d(log p)/dt + s . F + div F - g       (g - E g for a normalised density)

vanishes (Lu, Kusmierz and Mihalas, Eq. 3, 10 to 21, with the sign of g mended). Where s comes from smoothed points, p
is steady under the mean drift at the points near x, not under f(x) itself: `averaged_form` takes that, without bias.

How much that is, for sigma, rho and beta of the Lorenz system, truly 10, 28 and 2.667, from 100,000 points at D = 10 by
least absolute values: bandwidth 0.5 (8.9, 28.3, 2.55) and averaged (9.8, 28.9, 2.80); 0.8 (7.1, 26.2, 1.78) and (9.97,
28.29, 2.72); 2 (0.6, 26.3, 1.36) and (10.00, 28.06, 2.68). `weak_form` needs a fiftieth of the points for that.
"""

from __future__ import annotations

import torch
from torch import Tensor

from eqflow.fokker_planck.derivatives import along, unit
from eqflow.fokker_planck.model import Model
from eqflow.fokker_planck.residual import LinearResidual


def _divergences(model: Model, probes: Tensor, time: float) -> tuple[Tensor, Tensor]:
    """div b_k [n, unknowns of the drift] and div v [n]."""
    points = probes.detach().requires_grad_()
    columns = probes.new_zeros(len(probes), len(model.placement))
    known = probes.new_zeros(len(probes))
    with torch.enable_grad():
        features = None if model.features is None else model.features(points, time)
        drift = None if model.known is None else model.known(points, time)
        for c in range(model.dimension):
            if features is not None:
                slope = along(features, points, unit(points, c)).detach()
                columns += slope @ model.placement[:, c].to(slope).T
            if drift is not None:
                known += along(drift[:, c : c + 1], points, unit(points, c)).detach()[:, 0]
    return columns, known


def _diffusion_part(diffusion, probes: Tensor, score: Tensor, jacobian: Tensor) -> Tensor:
    """-(2 s . div D + s D s + div div D + D : grad s), [n]: the part of r from one term of D."""
    d = probes.shape[1]
    points = probes.detach().requires_grad_()
    with torch.enable_grad():
        matrix = diffusion(points).expand(len(points), d, d)
        flow = torch.zeros_like(points)  # div D
        for c in range(d):
            flow = flow + along(matrix[:, c], points, unit(points, c))
        spread = sum(along(flow[:, c : c + 1], points, unit(points, c))[:, 0] for c in range(d))
    matrix, flow, spread = matrix.detach(), flow.detach(), spread.detach()
    inner = torch.einsum("nc,ncd,nd->n", score, matrix, score) + (matrix * jacobian).sum((1, 2))
    return -(2 * (score * flow).sum(1) + spread + inner)


def strong_form(
    model: Model,
    probes: Tensor,  # [n, dimension]
    *,
    score: Tensor,  # [n, dimension]
    divergence: Tensor | None = None,  # [n]
    jacobian: Tensor | None = None,  # [n, dimension, dimension]
    rate: Tensor | None = None,  # [n]
    time: float = 0.0,
    population: Tensor | None = None,  # [points, dimension]
) -> LinearResidual:
    """r at some probes, linear in the unknowns: the loss of the paper.

    Args:
        model: what is known and unknown.
        probes: where; best not among the points that the score was made of.
        score: grad log p there.
        divergence: of the score; enough where every part of D is the same for all coordinates and everywhere.
        jacobian: of the score, for any D.
        rate: d(log p)/dt; None: steady.
        time: of the drift.
        population: points of p, where g is averaged as p is normalised; None: p is a density of numbers.

    Raises:
        ValueError: an argument is missing or of another shape.

    Example:
        >>> from eqflow.fokker_planck import least_squares, parametric
        >>> x = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
        >>> model = parametric("x", {"k": {"x": "-x"}}, diffusion=3.0)
        >>> least_squares(strong_form(model, x, score=-x / 2, divergence=torch.full((9,), -0.5)))
        tensor([1.5000], dtype=torch.float64)
    """
    d = probes.shape[1]
    if score.shape != probes.shape:
        raise ValueError(f"expected a score {list(probes.shape)}, got {list(score.shape)}")
    if divergence is None and jacobian is None:
        raise ValueError("expected the divergence or the jacobian of the score")
    trace_only = jacobian is None
    if trace_only:
        jacobian = divergence[:, None, None] / d * torch.eye(d, dtype=probes.dtype, device=probes.device)

    def spread(part):
        matrix = part(probes)
        isotropic = matrix.ndim == 2 and torch.equal(matrix, matrix[0, 0] * torch.eye(d).to(matrix))
        if trace_only and not isotropic:
            raise ValueError("expected the jacobian of the score, as the diffusion is a matrix or varies in space")
        return _diffusion_part(part, probes, score, jacobian)

    columns, offset = _divergences(model, probes, time)
    if model.features is not None:
        features = model.features(probes, time)
        columns = columns + torch.einsum("nc,kcl,nl->nk", score, model.placement.to(features), features)
    if model.known is not None:
        offset = offset + (score * model.known(probes, time)).sum(1)
    if model.diffusion is not None:
        offset = offset + spread(model.diffusion)
    parts = [columns, *(spread(part)[:, None] for part in model.unknown_diffusion)]
    if model.growth is not None:
        parts.append(-_about_mean(lambda points: model.growth(points, time), probes, population))
    if model.known_growth is not None:
        offset = offset - _about_mean(lambda points: model.known_growth(points, time), probes, population)
    if rate is not None:
        offset = offset + rate
    return LinearResidual(model.names, torch.cat(parts, 1), offset)


def _about_mean(function, probes: Tensor, population: Tensor | None) -> Tensor:
    values = function(probes)
    return values if population is None else values - function(population).mean(0)
