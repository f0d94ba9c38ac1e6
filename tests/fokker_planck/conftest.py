"""Systems with known answers, and points of them."""

import math
from types import SimpleNamespace

import pytest
import torch

from eqflow import ops
from eqflow.fokker_planck import parametric
from eqflow.systems import Lorenz

DOUBLE = torch.float64


def lorenz_model(diffusion=10.0, **options):
    unknown = {"sigma": {"x": "y - x"}, "rho": {"y": "x"}, "beta": {"z": "-z"}}
    return parametric("x y z", unknown, known={"y": "-x*z - y", "z": "x*y"}, diffusion=diffusion, **options)


def lorenz_points(count, *, diffusion, seed, chains=4000):
    """Shuffled points of the stochastic Lorenz system, float64 [count, 3], from fewer chains than its sampler has."""
    system, chains = Lorenz(diffusion=diffusion), min(chains, count)
    start = 8 * ops.normal(chains, 3, seed=seed).double() + torch.tensor([0.0, 0.0, 25.0], dtype=DOUBLE)
    settled = system.run(start, 2500, seed=seed)
    frames = system.run(settled, 250 * -(-count // chains), every=250, seed=seed, first_step=2500)
    points = frames.flatten(0, 1)
    return points[torch.randperm(len(points), generator=torch.Generator().manual_seed(seed))][:count]


@pytest.fixture(scope="session")
def lorenz():
    """The model with three parameters, their true values, and 100,000 shuffled points at D = 10."""
    truth = torch.tensor([10.0, 28.0, 8 / 3], dtype=DOUBLE)
    return SimpleNamespace(
        model=lorenz_model(),
        truth=truth,
        points=lorenz_points(100_000, diffusion=10.0, seed=1),
        make=lorenz_model,
        sample=lorenz_points,
    )


def runge_kutta(rates, state, times, steps=200):
    """The states at some times of a system of ordinary differential equations."""
    states, time = [state], times[0]
    for end in times[1:]:
        dt = (end - time) / steps
        for i in range(steps):
            t = time + i * dt
            a = rates(state, t)
            b = rates(state + dt / 2 * a, t + dt / 2)
            c = rates(state + dt / 2 * b, t + dt / 2)
            state = state + dt / 6 * (a + 2 * b + 2 * c + rates(state + dt * c, t + dt))
        time = end
        states.append(state)
    return torch.stack(states)


def _ornstein_uhlenbeck():
    """dx = (K x + u cos 2t) dt + G dW from N((2, -1), 0.05): Gaussian at all times."""
    drift = torch.tensor([[-1.0, 1.5], [-1.5, -0.7]], dtype=DOUBLE)
    push = torch.tensor([1.0, 0.5], dtype=DOUBLE)
    root = torch.tensor([[0.6, 0.2], [0.0, 0.4]], dtype=DOUBLE)
    noise = root @ root.T

    def rates(state, time):
        mean, spread = state[0], state[1:]
        return torch.cat(
            [
                (drift @ mean + push * math.cos(2 * time))[None],
                drift @ spread + spread @ drift.T + noise,
            ]
        )

    start = torch.tensor([[2.0, -1.0], [0.05, 0.0], [0.0, 0.05]], dtype=DOUBLE)

    def moments(times):
        return runge_kutta(rates, start, [0.0, *times])[1:] if times[0] > 0 else runge_kutta(rates, start, list(times))

    def snapshots(times, count, seed):
        points = []
        for k, state in enumerate(moments(times)):
            normals = ops.normal(count, 2, seed=seed, step=k).double()
            points.append(state[0] + normals @ torch.linalg.cholesky(state[1:]).T)
        return points

    unknown = {f"K{a}{b}": {a: b} for a in "xy" for b in "xy"}
    unknown |= {"u": {"x": "cos(2*t)"}, "w": {"y": "cos(2*t)"}}
    model = parametric("x y", unknown, unknown_diffusion="symmetric")
    truth = torch.cat([drift.flatten(), push, torch.stack([noise[0, 0], noise[1, 1], noise[0, 1]]) / 2])
    return SimpleNamespace(model=model, truth=truth, moments=moments, rates=rates, snapshots=snapshots, noise=noise)


@pytest.fixture(scope="session")
def ornstein_uhlenbeck():
    return _ornstein_uhlenbeck()


def _birth_death():
    """dx = -k x dt + sqrt(2 D) dW with growth g_0 - a x^2: a Gaussian of changing mass."""
    k, diffusion, decay, birth = 1.0, 0.3, 0.4, 0.25

    def rates(state, time):
        mean, spread, _ = state
        return torch.stack(
            [
                -k * mean - 2 * decay * spread * mean,
                -2 * k * spread + 2 * diffusion - 2 * decay * spread**2,
                birth - decay * (spread + mean**2),
            ]
        )

    start = torch.tensor([1.5, 0.2, 0.0], dtype=DOUBLE)

    def moments(times):
        return runge_kutta(rates, start, list(times))

    def snapshots(times, count, seed):
        states = moments(times)
        points = [
            mean + spread.sqrt() * ops.normal(count, 1, seed=seed, step=k).double()
            for k, (mean, spread, _) in enumerate(states)
        ]
        return points, states[:, 2].exp().tolist()

    model = parametric("x", {"k": {"x": "-x"}}, unknown_diffusion="isotropic", growth={"g0": "1", "a": "-x^2"})
    truth = torch.tensor([k, diffusion, birth, decay], dtype=DOUBLE)
    return SimpleNamespace(model=model, truth=truth, moments=moments, rates=rates, snapshots=snapshots)


@pytest.fixture(scope="session")
def birth_death():
    return _birth_death()
