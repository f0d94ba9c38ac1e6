"""The chaotic systems: their equations, their integrators, and the points sampled from their attractors."""

import math

import pytest
import torch

from eqflow.dynamics import GroundTruth, rollout
from eqflow.systems import SYSTEMS, Halvorsen, Lorenz, Rossler, SprottB, Thomas
from eqflow.systems.chains import CHAIN_COUNT, Chains
from eqflow.systems.integrators import heun, runge_kutta

NAMES = ("lorenz", "chen", "sprott-b", "rossler", "halvorsen", "thomas")
DOUBLE = torch.float64


def normals(*shape, seed=0):
    return torch.randn(shape, dtype=DOUBLE, generator=torch.Generator().manual_seed(seed))


def mean_error(points):
    return points.std(0) / math.sqrt(len(points))


def test_runge_kutta_has_order_four():
    start, ends = torch.tensor([1.0, 0.0], dtype=DOUBLE), []
    for steps in (50, 100, 200):
        state = start
        for _ in range(steps):
            state = runge_kutta(lambda x: torch.stack([-x[1], x[0]]), state, 2 / steps)
        ends.append(float((state - torch.tensor([math.cos(2), math.sin(2)], dtype=DOUBLE)).norm()))
    assert ends[0] / ends[1] == pytest.approx(16, rel=0.05) and ends[1] / ends[2] == pytest.approx(16, rel=0.05)


def test_heun_without_noise_has_order_two():
    errors = []
    for steps in (50, 100):
        state = torch.ones(1, dtype=DOUBLE)
        for _ in range(steps):
            state = heun(torch.neg, state, 1 / steps, torch.zeros(1, dtype=DOUBLE))
        errors.append(abs(float(state) - math.exp(-1)))
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.05)


def test_heun_has_the_stationary_variance_to_second_order():
    """Of dx = -x dt + sqrt(2) dW: x' = a x + (1 - dt/2) xi with a = 1 - dt + dt^2/2 and Var xi = 2 dt."""
    dt, noise = 0.1, normals(400_000)
    state = heun(torch.neg, torch.zeros(400_000, dtype=DOUBLE), dt, noise * math.sqrt(2 * dt))
    assert float(state.var()) == pytest.approx((1 - dt / 2) ** 2 * 2 * dt, rel=0.01)
    decay = 1 - dt + dt**2 / 2
    stationary = (1 - dt / 2) ** 2 * 2 * dt / (1 - decay**2)
    assert stationary == pytest.approx(1, abs=dt**2)


@pytest.mark.parametrize("name", NAMES)
def test_slopes_are_the_derivatives_of_the_equations(name):
    system, points = SYSTEMS[name], 3 * normals(5, 3)
    jacobian = torch.stack([torch.autograd.functional.jacobian(system.velocity, point) for point in points])
    torch.testing.assert_close(system.jacobian(points), jacobian, rtol=1e-14, atol=1e-14)
    torch.testing.assert_close(system.divergence(points), jacobian.diagonal(dim1=1, dim2=2).sum(1))
    directions = normals(5, 2, 3, seed=1)
    velocity, pushed = system.pushforward(points, directions)
    assert torch.equal(velocity, system.velocity(points))
    torch.testing.assert_close(pushed, torch.einsum("nij,nkj->nki", jacobian, directions))


@pytest.mark.parametrize(
    ("name", "flip"), [("lorenz", (-1, -1, 1)), ("chen", (-1, -1, 1)), ("sprott-b", (-1, -1, 1)), ("thomas", (-1,) * 3)]
)
def test_symmetries_of_the_equations(name, flip):
    points, flip = normals(20, 3), torch.tensor(flip)
    velocity = SYSTEMS[name].velocity
    torch.testing.assert_close(velocity(points * flip), velocity(points) * flip)


@pytest.mark.parametrize("name", ["halvorsen", "thomas"])
def test_cyclic_systems(name):
    points, velocity = normals(20, 3), SYSTEMS[name].velocity
    torch.testing.assert_close(velocity(points.roll(1, 1)), velocity(points).roll(1, 1))


def test_fixed_points():
    side = math.sqrt(8 / 3 * 27)
    torch.testing.assert_close(
        Lorenz().velocity(torch.tensor([[side, side, 27.0], [-side, -side, 27.0]], dtype=DOUBLE)),
        torch.zeros(2, 3, dtype=DOUBLE),
        rtol=0,
        atol=1e-12,
    )
    assert not SprottB().velocity(torch.tensor([[1.0, 1.0, 0.0], [-1.0, -1.0, 0.0]])).any()
    x = (5.7 - math.sqrt(5.7**2 - 4 * 0.2 * 0.2)) / 2
    assert Rossler().velocity(torch.tensor([x, -x / 0.2, x / 0.2], dtype=DOUBLE)).abs().max() < 1e-14


@pytest.fixture(scope="module")
def points_of():
    """2000 points of a system, made once."""
    made = {}

    def points(name):
        if name not in made:
            made[name] = SYSTEMS[name].sample(2000, seed=0)
        return made[name]

    return points


# Time averages of d/dt of a few functions, which vanish on an attractor: E[f . grad phi] = 0.
IDENTITIES = {
    "lorenz": lambda x, y, z: (y - x, x * y - 8 / 3 * z, (y - x) * x, (28 * x - y) * y - 8 / 3 * z * z),
    "chen": lambda x, y, z: (y - x, x * y - 3 * z, (y - x) * x),
    "sprott-b": lambda x, y, z: (y * z, x - y, 1 - x * y, x * y * z + (x - y) * y),
    "rossler": lambda x, y, z: (-y - z, x + 0.2 * y, 0.2 + z * (x - 5.7), -x * z + 0.2 * y * y),
    "halvorsen": lambda x, y, z: (-1.27 * x - 4 * y - 4 * z - y * y,),
    "thomas": lambda x, y, z: (y.sin() - 0.208186 * x, (y.sin() - 0.208186 * x) * x),
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_points_are_stationary(name, points_of):
    points = points_of(name)
    rates = torch.stack(IDENTITIES[name](*points.unbind(1)), 1)
    assert (rates.mean(0).abs() < 4 * mean_error(rates)).all()


@pytest.mark.parametrize("name", NAMES)
def test_points_do_not_drift(name, points_of):
    """The moments of the same chains some time later, within the errors of a difference."""
    system, points = SYSTEMS[name], points_of(name)
    later = system.run(points, round(5 * system.chains.interval / system.dt))
    for power in (1, 2):
        away = later**power - points**power
        assert (away.mean(0).abs() < 4.5 * mean_error(away)).all()


def test_lorenz_has_its_known_moments(points_of):
    points = points_of("lorenz")
    expected, deviation = torch.tensor([0.0, 0.0, 23.55]), torch.tensor([7.93, 9.01, 8.62])
    assert ((points.mean(0) - expected).abs() < 4 * mean_error(points) + torch.tensor([0, 0, 0.02])).all()
    torch.testing.assert_close(points.std(0).float(), deviation, rtol=0.05, atol=0)


def test_halvorsen_at_the_parameter_that_circulates_is_a_limit_cycle():
    """Trajectories on a cycle come back to where they were; chaotic ones do not."""
    returns = {}
    for system in (Halvorsen(1.89), Halvorsen()):
        points = system.sample(20, seed=0)
        path = system.run(points, 800, every=2)
        returns[system.a] = float((path[:, 100:] - points[:, None]).norm(dim=2).amin(1).max())
    assert returns[1.89] < 0.5 < 1 < returns[1.27]


class Brief:
    """Chains whose burn-in is short, for what does not depend on it."""

    chains = Chains(0.01, 2.0, 0.1, (0.0, 0.0, 24.0), (8.0, 9.0, 8.0))


class BriefLorenz(Brief, Lorenz):
    pass


class BriefThomas(Brief, Thomas):
    pass


class BriefNoise(Lorenz):
    chains = Chains(0.002, 4.0, 0.5, (0.0, 0.0, 25.0), (8.0, 8.0, 8.0))


def test_stochastic_lorenz_obeys_its_moment_identities():
    """d/dt of z, y^2/2, x^2/2 and x y on average: drift terms and the diffusion."""
    points = BriefNoise(diffusion=10.0).sample(4000, seed=0)
    x, y, z = points.unbind(1)
    rates = torch.stack([x * y - 8 / 3 * z, x * y * (28 - z) - y * y + 10, 10 * (x * y - x * x) + 10], 1)
    assert (rates.mean(0).abs() < 4 * mean_error(rates) + torch.tensor([0.1, 2.0, 0.6])).all()
    torch.testing.assert_close(points.std(0).float(), torch.tensor([8.1, 9.1, 7.9]), rtol=0.03, atol=0)


@pytest.mark.parametrize(
    "system", [BriefLorenz(), BriefThomas(), BriefLorenz(diffusion=10.0)], ids=["lorenz", "thomas", "stochastic"]
)
def test_points_depend_on_seed_and_index_only(system):
    whole = system.sample(37, seed=5, first_sample=100)
    parts = [system.sample(count, seed=5, first_sample=first) for count, first in ((1, 100), (20, 101), (16, 121))]
    assert torch.equal(torch.cat(parts), whole) and whole.dtype == DOUBLE
    assert not torch.equal(whole, system.sample(37, seed=6, first_sample=100))
    assert system.sample(0, seed=0, first_sample=3).shape == (0, 3)


def test_rounds_of_snapshots_follow_the_chains(monkeypatch):
    monkeypatch.setattr("eqflow.systems.chains.CHAIN_COUNT", 10)
    system = BriefLorenz()
    whole = system.sample(35, seed=1)
    for first, count in ((0, 10), (7, 5), (8, 20), (12, 3), (30, 5)):
        assert torch.equal(system.sample(count, seed=1, first_sample=first), whole[first : first + count])
    interval = round(system.chains.interval / system.dt)
    assert torch.equal(system.run(whole[:10], interval), whole[10:20])
    assert CHAIN_COUNT == 20_000


def test_run_gives_frames():
    system, start = Lorenz(), normals(3, 3)
    frames = system.run(start, 30, every=10)
    assert frames.shape == (3, 3, 3) and torch.equal(frames[:, -1], system.run(start, 30))
    assert torch.equal(system.run(frames[:, 0].contiguous(), 10), frames[:, 1])
    assert torch.equal(system.run(start, 0), start) and system.run(start, 3, every=10).shape == (3, 0, 3)
    assert system.run(start.float(), 2).dtype == torch.float32
    followed = rollout(start, GroundTruth(system, segment=10), 30)
    assert torch.equal(followed.state, frames[:, -1])


def test_noise_goes_on_where_it_was_cut():
    system, start = Lorenz(diffusion=10.0), normals(3, 3)
    whole = system.run(start, 20, seed=4)
    half = system.run(start, 10, seed=4)
    assert torch.equal(system.run(half, 10, seed=4, first_step=10), whole)
    assert torch.equal(system.run(start[1:], 20, seed=4, first_sample=1), whole[1:])
    assert not torch.equal(system.run(half, 10, seed=4), whole)


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="expected a seed, since this system has noise"):
        Lorenz(diffusion=1.0).run(torch.ones(1, 3), 1)
    with pytest.raises(ValueError, match="expected scores"):
        Lorenz(diffusion=1.0).velocity(torch.ones(1, 3))
    scores = torch.ones(2, 3)
    assert torch.equal(Lorenz(diffusion=2.0).velocity(scores, scores), Lorenz().drift(scores) - 2)
    with pytest.raises(ValueError, match="diffusion from 0 up, got -1"):
        Lorenz(diffusion=-1)
    with pytest.raises(ValueError, match="first_sample from 0 up"):
        Lorenz().sample(1, seed=0, first_sample=-1)
    with pytest.raises(ValueError, match="backend 'auto' or 'reference' for Lorenz"):
        Lorenz().run(torch.ones(1, 3), 1, backend="triton")
    with pytest.raises(FloatingPointError, match="trajectory of Halvorsen left every bound"):
        Halvorsen().run(torch.full((1, 3), -100.0), 1000)
