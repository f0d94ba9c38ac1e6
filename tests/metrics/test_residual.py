"""Residual, strain and Stein's identities where their values are known."""

import math

import pytest
import torch

from eqflow.metrics import residual, stein

DOUBLE = torch.float64


def normals(*shape, seed=0):
    return torch.randn(shape, dtype=DOUBLE, generator=torch.Generator().manual_seed(seed))


def test_a_linear_flow_of_a_gaussian():
    """v = A y, s = -y, y ~ N(0, I): r = tr A - y^T A y, so E[r^2] = 2 |E|_F^2, and E|v|^2 = |A|_F^2."""
    matrix = torch.tensor([[0.5, 2.0, 0.0], [-1.0, 0.3, 0.4], [0.1, 0.0, -0.6]], dtype=DOUBLE)
    points = normals(100_000, 3)
    strain = ((matrix + matrix.T) / 2).square().sum()
    found = residual(points @ matrix.T, matrix.trace().expand(len(points)), -points, strain=strain.expand(len(points)))
    total = matrix.square().sum()
    assert abs(found.residual - 3 * 2 * strain / total) < 4 * found.residual_error
    assert abs(found.strain - 3 * strain / total) < 4 * found.strain_error
    # E[(v . s)^2] = 2 |E|_F^2 + (tr A)^2
    kept = 1 - 2 * strain / (2 * strain + 2 * matrix.trace() ** 2)
    assert abs(found.r_squared - kept) < 4 * found.r_squared_error
    assert 0 < found.residual_error < 0.1 and 0 < found.r_squared_error < 0.01


def test_errors_are_the_spread_between_repeats():
    matrix, values = torch.tensor([[0.5, 2.0], [-1.0, 0.3]], dtype=DOUBLE), []
    for repeat in range(200):
        points = normals(200, 2, seed=repeat)
        values.append(residual(points @ matrix.T, matrix.trace().expand(200), -points))
    for value, error in ((0, 1), (2, 3)):
        spread = torch.stack([found[value] for found in values]).std()
        stated = torch.stack([found[error] for found in values]).mean()
        assert float(stated) == pytest.approx(float(spread), rel=0.2)


def test_many_models_at_once():
    points, velocity, divergence = normals(50, 2), normals(3, 50, 2, seed=1), normals(3, 50, seed=2)
    together = residual(velocity, divergence, -points, strain=divergence.square())
    for model in range(3):
        alone = residual(velocity[model], divergence[model], -points, strain=divergence[model].square())
        for whole, part in zip(together, alone, strict=True):
            torch.testing.assert_close(whole[model], part)


def test_speed_does_not_matter_and_rotation_keeps_a_gaussian():
    points, divergence = normals(100, 2), normals(100, seed=1)
    velocity = normals(100, 2, seed=2)
    for first, second in zip(
        residual(velocity, divergence, -points)[:4], residual(7 * velocity, 7 * divergence, -points)[:4], strict=True
    ):
        torch.testing.assert_close(first, second)
    kept = residual(torch.stack([-points[:, 1], points[:, 0]], 1), torch.zeros(100), -points)
    assert kept.residual < 1e-30 and kept.strain is None


def test_stein_holds_for_the_score_and_fails_for_others():
    covariance = torch.tensor([[1.0, 0.6], [0.6, 0.5]], dtype=DOUBLE)
    points = normals(20_000, 2) @ torch.linalg.cholesky(covariance).T + 5
    score = -(points - 5) @ torch.linalg.inv(covariance)
    exact = stein(points, score)
    assert exact.worst < 4.5
    torch.testing.assert_close(exact.product, -torch.eye(2, dtype=DOUBLE), rtol=0, atol=0.1)
    assert stein(points, 1.2 * score).worst > 10
    assert stein(points, score + 0.2).worst > 10
    assert stein(points, score.flip(1)).worst > 10


def test_the_worst_identity_is_in_standard_errors():
    worst = [stein(points, -points).worst for points in (normals(500, 1, seed=n) for n in range(300))]
    over = sum(value > 1.96 for value in worst) / 300  # of two nearly independent normal numbers
    assert abs(over - (1 - 0.95**2)) < 4 * math.sqrt(0.1 * 0.9 / 300)


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match="expected velocity"):
        residual(torch.zeros(3, 2), torch.zeros(2), torch.zeros(3, 2))
    with pytest.raises(ValueError, match="points and scores"):
        stein(torch.zeros(3, 2), torch.zeros(2, 2))
