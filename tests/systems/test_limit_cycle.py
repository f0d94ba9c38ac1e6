import pytest
import torch

from eqflow.systems.limit_cycle import LimitCycle

DOUBLE = torch.float64


@pytest.mark.parametrize("diffusion", [0.05, 0.2, 2.0])
def test_the_density(diffusion):
    system = LimitCycle(rotation=1.5, diffusion=diffusion)
    axis = torch.linspace(-5, 5, 1001, dtype=DOUBLE)
    density = system.log_density(torch.cartesian_prod(axis, axis)).exp()
    assert density.sum().item() * 1e-4 == pytest.approx(1.0, abs=1e-8)
    points = torch.randn(20, 2, dtype=DOUBLE, generator=torch.Generator().manual_seed(0)).requires_grad_()
    (gradient,) = torch.autograd.grad(system.log_density(points).sum(), points)
    torch.testing.assert_close(system.score(points), gradient)
    score, drift = system.score(points), system.drift(points)
    laplacian = sum(torch.autograd.grad(score[:, c].sum(), points, retain_graph=True)[0][:, c] for c in (0, 1))
    torch.testing.assert_close(system.score_divergence(points), laplacian)
    torch.testing.assert_close(system.velocity(points), drift - diffusion * score)
    flow = sum(torch.autograd.grad(drift[:, c].sum(), points, retain_graph=True)[0][:, c] for c in (0, 1))
    residual = (score * drift).sum(1) + flow - diffusion * (score.square().sum(1) + laplacian)
    torch.testing.assert_close(residual, torch.zeros_like(residual), rtol=0, atol=1e-9)


def test_samples_have_the_density():
    system = LimitCycle(diffusion=0.5)
    points = system.sample(50_000, seed=1)
    axis = torch.linspace(-4, 4, 801, dtype=DOUBLE)
    grid = torch.cartesian_prod(axis, axis)
    weights = system.log_density(grid).exp() * 1e-4
    for moment in (
        lambda x: x.square().sum(1),
        lambda x: x.square().sum(1) ** 2,
        lambda x: x[:, 0] ** 2,
        lambda x: x[:, 0] * x[:, 1],
    ):
        values = moment(points)
        assert abs(values.mean() - (weights * moment(grid)).sum()) < 4 * values.std() / 50_000**0.5
    parts = [system.sample(20, seed=1), system.sample(30, seed=1, first_sample=20)]
    assert torch.equal(torch.cat(parts), points[:50])


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="diffusion above 0, got 0"):
        LimitCycle(diffusion=0)
