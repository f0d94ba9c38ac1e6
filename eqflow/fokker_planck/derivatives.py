"""Derivatives of functions that treat each point on its own, by automatic differentiation."""

from __future__ import annotations

import torch
from torch import Tensor


def along(
    values: Tensor,  # [n, m], computed from `points`
    points: Tensor,  # [n, dimension], requires grad
    direction: Tensor,  # [n, dimension]
) -> Tensor:
    """The derivative of the values along a direction, [n, m], itself differentiable.

    Reverse mode twice: the gradient of u . values is linear in u, and its derivative with respect to u is this one.

    Example:
        >>> points = torch.tensor([[1.0, 2.0]], requires_grad=True)
        >>> along(points.square(), points, torch.ones(1, 2)).detach()
        tensor([[2., 4.]])
    """
    if values.requires_grad:
        weights = torch.zeros_like(values, requires_grad=True)
        (gradient,) = torch.autograd.grad(values, points, weights, create_graph=True, materialize_grads=True)
        if gradient.requires_grad:
            return torch.autograd.grad(gradient, weights, direction, create_graph=True, materialize_grads=True)[0]
    return torch.zeros_like(values)


def unit(points: Tensor, coordinate: int) -> Tensor:
    """The direction of one coordinate at every point."""
    direction = torch.zeros_like(points)
    direction[:, coordinate] = 1.0
    return direction
