"""The weak form of the Lorenz system with a library of 30 terms, as one writes it in NumPy and in PyTorch.

The drift is theta u, with the ten polynomials u of degree 2 in each row; phi_j = cos(w_j . (x - centre) + phase_j):

    A_jcl = -w_jc E[sin_j u_l],    b_j = D |w_j|^2 E[cos_j],    V = Cov(-sin_j w_j . theta u - D |w_j|^2 cos_j) / n
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from eqflow.fokker_planck import Cosines

DIFFUSION = 10.0
TRUTH = torch.tensor(
    [
        [0.0, -10.0, 10.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0],
        [0.0, 28.0, -1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0],
        [0.0, 0.0, 0.0, -8 / 3, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0],
    ],
    dtype=torch.float64,
)  # of 1, x, y, z, x^2, x y, x z, y^2, y z, z^2 in x', y' and z'


class Sums(NamedTuple):
    """Over some points; arrays of NumPy or tensors."""

    matrix: object  # [m, 3, 10], or [m, m] of the products
    target: object  # [m]


Peer = Callable[[object, tuple, object], Sums]  # points, (w, phase, centre), theta or None


def numpy_moments(points: np.ndarray, functions: tuple, _) -> Sums:
    frequencies, phases, centre = functions
    angles = (points - centre) @ frequencies.T + phases
    x, y, z = points.T
    library = np.stack([np.ones_like(x), x, y, z, x * x, x * y, x * z, y * y, y * z, z * z], 1)
    matrix = -frequencies[:, :, None] * (np.sin(angles).T @ library)[:, None]
    return Sums(matrix, DIFFUSION * (frequencies**2).sum(1) * np.cos(angles).sum(0))


def torch_moments(points: Tensor, functions: tuple, _) -> Sums:
    frequencies, phases, centre = functions
    angles = (points - centre) @ frequencies.T + phases
    x, y, z = points.T
    library = torch.stack([torch.ones_like(x), x, y, z, x * x, x * y, x * z, y * y, y * z, z * z], 1)
    matrix = -frequencies[:, :, None] * (angles.sin().T @ library)[:, None]
    return Sums(matrix, DIFFUSION * (frequencies**2).sum(1) * angles.cos().sum(0))


def numpy_products(points: np.ndarray, functions: tuple, theta: np.ndarray) -> Sums:
    frequencies, phases, centre = functions
    angles = (points - centre) @ frequencies.T + phases
    x, y, z = points.T
    library = np.stack([np.ones_like(x), x, y, z, x * x, x * y, x * z, y * y, y * z, z * z], 1)
    along = library @ theta.T @ frequencies.T
    rates = -np.sin(angles) * along - DIFFUSION * (frequencies**2).sum(1) * np.cos(angles)
    return Sums(rates.T @ rates, rates.sum(0))


def torch_products(points: Tensor, functions: tuple, theta: Tensor) -> Sums:
    frequencies, phases, centre = functions
    angles = (points - centre) @ frequencies.T + phases
    x, y, z = points.T
    library = torch.stack([torch.ones_like(x), x, y, z, x * x, x * y, x * z, y * y, y * z, z * z], 1)
    along = library @ theta.T @ frequencies.T
    rates = -angles.sin() * along - DIFFUSION * (frequencies**2).sum(1) * angles.cos()
    return Sums(rates.T @ rates, rates.sum(0))


def moments(peer: Peer, points: Tensor, cosines: Cosines, theta: Tensor, chunk: int) -> tuple[Tensor, Tensor]:
    """A [m, 30] and b [m]."""
    matrix, target = _over_chunks(peer, points, cosines, theta, chunk)
    return matrix.flatten(1) / len(points), target / len(points)


def covariance(peer: Peer, points: Tensor, cosines: Cosines, theta: Tensor, chunk: int) -> tuple[Tensor]:
    """V [m, m]."""
    products, total = _over_chunks(peer, points, cosines, theta, chunk)
    count = len(points)
    return ((products / count - torch.outer(total, total) / count**2) / count,)


def _over_chunks(peer: Peer, points: Tensor, cosines: Cosines, theta: Tensor, chunk: int) -> tuple[Tensor, Tensor]:
    given = [cosines.frequencies, cosines.phases, cosines.centre, theta]
    if peer.__name__.startswith("numpy"):
        points, given = points.numpy(), [each.numpy() for each in given]
    *functions, theta = given
    parts = [peer(points[i : i + chunk], tuple(functions), theta) for i in range(0, len(points), chunk)]
    return tuple(torch.as_tensor(sum(column)) for column in zip(*parts, strict=True))
