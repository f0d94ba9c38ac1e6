import math

import pytest
import torch

from eqflow.fokker_planck import DynamicsTraining, density_from_dynamics, stationary_residual
from eqflow.score import Density, DensityShape, DensityTraining, train_density
from eqflow.systems import LimitCycle

DOUBLE = torch.float64
BOX = ([-2.2, -2.2], [2.2, 2.2])
SMALL = DensityShape(2, 30)
STIFFNESS = torch.tensor([[2.0, 0.5], [0.5, 1.0]])


def gap(system, density):
    """KL(p || q) and total variation on a grid."""
    axis = (torch.arange(260, dtype=DOUBLE) + 0.5) * 0.02 - 2.6
    grid = torch.cartesian_prod(axis, axis)
    true = system.log_density(grid)
    found = density.log_density(grid.to(density.centroids)).double()
    return float((true.exp() * (true - found)).sum()) * 4e-4, float((true.exp() - found.exp()).abs().sum()) * 2e-4


@pytest.mark.parametrize("couplings", [0, 2])
def test_the_residual_of_a_steady_density_vanishes(couplings):
    """A Gaussian is steady under f = -C^-1 x D + R C^-1 x for any skew R."""
    root = torch.tensor([[0.8, 0.0], [0.3, 0.5]], dtype=DOUBLE)
    precision = torch.linalg.inv(root @ root.T)
    turn = torch.tensor([[0.0, 1.3], [-1.3, 0.0]], dtype=DOUBLE)
    density = Density(DensityShape(2, 1, couplings), torch.zeros(1, 2, dtype=DOUBLE), 1.0)
    with torch.no_grad():
        density.root.copy_(root.tril(-1) + root.diagonal().log().diag())
    points = torch.randn(20, 2, dtype=DOUBLE, generator=torch.Generator().manual_seed(0))
    local = density.local(points)
    steady = stationary_residual(lambda x: x @ precision @ (turn.T - 0.7 * torch.eye(2)).double(), 0.7, points, local)
    assert steady.abs().max() < 1e-6 and stationary_residual(lambda x: -x, 0.7, points, local).abs().max() > 0.5


def test_the_residual_is_the_rate_of_change():
    """dq/dt = -q r, against the Fokker-Planck operator by finite differences of the current."""
    system = LimitCycle(diffusion=0.3)
    density = Density(DensityShape(2, 3), torch.tensor([[1.0, 0.0], [-0.5, 0.5], [0.0, -1.0]], dtype=DOUBLE), 0.5)
    points, step = torch.tensor([[0.3, 0.2], [1.1, -0.4]], dtype=DOUBLE), 1e-4

    def current(x):
        return density.log_density(x).exp()[:, None] * (system.drift(x) - 0.3 * density.score(x))

    change = torch.zeros(2, dtype=DOUBLE)
    for place, move in enumerate(step * torch.eye(2, dtype=DOUBLE)):
        change -= (current(points + move) - current(points - move))[:, place].detach() / (2 * step)
    residual = stationary_residual(system.drift, 0.3, points, density.local(points))
    torch.testing.assert_close(-density.log_density(points).exp() * residual, change, rtol=1e-6, atol=1e-6)


def test_an_ornstein_uhlenbeck_process():
    """One Gaussian and known answer: D K^-1 for a symmetric drift -K x."""
    training = DynamicsTraining(steps=200, probes=256, rate=3e-2, starts=1)
    fit = density_from_dynamics(lambda x: -x @ STIFFNESS, 0.25, ([-2.5] * 2, [2.5] * 2), DensityShape(2, 1), training)
    covariance = fit.density.factor @ fit.density.factor.T
    torch.testing.assert_close(covariance, 0.25 * torch.linalg.inv(STIFFNESS), rtol=0, atol=1e-3)
    assert fit.density.centroids.abs().max() < 0.005 and fit.objective < 1e-4 and abs(fit.mass - 1) < 0.01


def test_weighting_by_the_density_is_what_makes_it_work():
    system, found = LimitCycle(diffusion=0.4), {}
    for objective in ("squared", "absolute", "unweighted"):
        training = DynamicsTraining(objective, steps=120, probes=300, starts=1, every=60)
        fit = density_from_dynamics(system.drift, 0.4, BOX, SMALL, training)
        found[objective] = gap(system, fit.density)[0]
    assert found["squared"] < 0.03 and found["absolute"] < 0.05 < 0.1 < found["unweighted"]


def test_a_few_points_and_the_dynamics_together():
    """Points give the place, dynamics the shape: better than 300 points alone."""
    system = LimitCycle(diffusion=0.4)
    points = system.sample(300, seed=1).float()
    start = train_density(points, SMALL, DensityTraining(steps=100)).density
    before = gap(system, start)[0]
    training = DynamicsTraining(steps=100, probes=300, every=50)
    fit = density_from_dynamics(system.drift, 0.4, BOX, SMALL, training, start=start)
    assert gap(system, fit.density)[0] < 0.3 * before and len(fit.objectives) == 1
    assert gap(system, start)[0] == before  # the start is left as it was


def test_the_best_start_counts_and_seeds_decide():
    training = DynamicsTraining(steps=20, probes=64, starts=3, every=10, anneal=1.0)
    told = []
    fit, again = (
        density_from_dynamics(LimitCycle().drift, 0.2, BOX, SMALL, training, progress=lambda *row: told.append(row))
        for _ in range(2)
    )
    assert fit.objective == float(fit.objectives.min()) and len(set(fit.objectives.tolist())) == 3
    assert torch.equal(fit.density.centroids, again.density.centroids)
    assert told[:2] == [(0, *row) for row in told_rows(told, 0)] and len(told) == 12
    best = int(fit.objectives.argmin())
    torch.testing.assert_close(fit.history, torch.tensor(told_rows(told, best), dtype=DOUBLE))


def told_rows(told, start):
    return [row[1:] for row in told[:6] if row[0] == start]


def test_mass_that_leaves_the_box_is_noticed():
    """With too large a rate a single component stretches out of the box, where nothing is asked of it."""
    training = DynamicsTraining(steps=60, probes=256, rate=1e-1, starts=2, every=20)
    with pytest.raises(FloatingPointError, match="the mass left the box in each of 2 runs"):
        density_from_dynamics(lambda x: -x @ STIFFNESS, 0.25, ([-2.5] * 2, [2.5] * 2), DensityShape(2, 1), training)


@pytest.mark.slow
@pytest.mark.parametrize(("diffusion", "anneal", "most"), [(0.2, None, (0.005, 0.03)), (0.1, 0.5, (0.015, 0.06))])
def test_the_limit_cycle(diffusion, anneal, most):
    system = LimitCycle(diffusion=diffusion)
    training = DynamicsTraining(anneal=anneal)
    fit = density_from_dynamics(system.drift, diffusion, BOX, DensityShape(2, 100), training)
    divergence, variation = gap(system, fit.density)
    print(f"\nD={diffusion}: KL {divergence:.2g}, TV {variation:.2g}, mass {fit.mass:.4f}, {fit.objectives.tolist()}")
    assert divergence < most[0] and variation < most[1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"diffusion": 0.0}, "expected a positive diffusion"),
        ({"box": ([0.0, 0.0], [1.0, 0.0])}, r"expected a box \(low, high\) of 2 finite numbers"),
        ({"box": ([0.0], [1.0])}, r"expected a box \(low, high\) of 2 finite numbers"),
        ({"training": DynamicsTraining(anneal=0.1)}, r"expected anneal from the diffusion 0\.2 up, got 0\.1"),
        ({"start": Density(DensityShape(2, 1), torch.zeros(1, 2), 1.0)}, "expected a start of DensityShape"),
    ],
)
def test_wrong_arguments_are_refused(change, message):
    arguments = {"drift": LimitCycle().drift, "diffusion": 0.2, "box": BOX, "shape": SMALL, **change}
    with pytest.raises(ValueError, match=message):
        density_from_dynamics(**arguments)


def test_wrong_options_are_refused():
    for options, message in (
        ({"objective": "mean"}, "expected objective 'squared', 'absolute', 'unweighted', got 'mean'"),
        ({"steps": 0}, "expected steps from 1 up"),
        ({"rate": math.nan}, "expected a positive rate"),
    ):
        with pytest.raises(ValueError, match=message):
            DynamicsTraining(**options)
