"""Lyapunov exponents where they are known: linear systems exactly, chaotic ones from the literature."""

import math

import pytest
import torch

from eqflow.metrics import largest_exponent, lyapunov_spectrum
from eqflow.ops.divergence import pushforward
from eqflow.ops.mlp import MLP
from eqflow.systems import SYSTEMS, Lorenz

DOUBLE = torch.float64
SADDLE = torch.tensor([[0.3, 5.0, 0.0], [0.0, -0.5, 1.0], [0.0, 0.0, -1.2]], dtype=DOUBLE)
RISING = torch.diag(torch.tensor([-1.0, -0.2, 0.4], dtype=DOUBLE))  # each axis is invariant
SPIRAL = torch.tensor([[-0.2, 3.0], [-3.0, -0.2]], dtype=DOUBLE)


def normals(*shape, seed=0):
    return torch.randn(shape, dtype=DOUBLE, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("matrix", [SADDLE, SPIRAL, RISING], ids=["saddle", "spiral", "rising"])
def test_linear_systems_have_the_real_parts(matrix):
    found = lyapunov_spectrum(
        lambda x: x @ matrix.T,
        normals(3, len(matrix)),
        dt=0.05,
        time=10.0,
        warm_up=30.0,
        orthogonalise=5,
        pushforward=lambda x, z: (x @ matrix.T, (z @ matrix.T).expand(len(x), -1, -1)),
    )
    expected = torch.linalg.eigvals(matrix).real.sort(descending=True).values
    torch.testing.assert_close(found.exponents[0], expected, rtol=0, atol=2e-5)
    torch.testing.assert_close(found.divergence, matrix.trace()[None], rtol=0, atol=1e-12)
    assert found.sum_error.abs().max() < 2e-5 and found.stayed == 1


def test_the_error_of_the_sum_falls_with_the_fourth_power_of_the_step():
    errors = [
        abs(float(lyapunov_spectrum(lambda x: x @ SADDLE.T, normals(2, 3), dt=dt, time=2.0).sum_error))
        for dt in (0.2, 0.1)
    ]
    assert errors[0] / errors[1] == pytest.approx(16, rel=0.15)


def test_two_trajectories_find_the_largest():
    found = largest_exponent(lambda x: x @ SADDLE.T, 0.1 * normals(4, 3), dt=0.02, time=5.0, warm_up=20.0)
    assert float(found.exponents) == pytest.approx(0.3, abs=1e-4)
    with pytest.raises(ValueError, match="use lyapunov_spectrum"):
        _ = found.sum_error


def test_lorenz():
    """T = 20 from 64 starts: 0.905 within 0.03, the middle one 0, the sum the divergence -13.667."""
    lorenz = Lorenz()
    starts = lorenz.sample(64, seed=1)
    found = lyapunov_spectrum(lorenz.velocity, starts, dt=0.02, time=20.0, warm_up=2.0, pushforward=lorenz.pushforward)
    largest, middle, lowest = found.exponents[0].tolist()
    error = found.standard_errors[0]
    assert abs(largest - 0.9056) < 0.03 + 2 * float(error[0]) and error[0] < 0.03
    assert abs(middle) < 0.02 and lowest == pytest.approx(-14.57, abs=0.06)
    assert float(found.divergence) == pytest.approx(-41 / 3, abs=1e-12)
    assert abs(float(found.sum_error)) < 0.005
    two = largest_exponent(lorenz.velocity, starts, dt=0.02, time=20.0, warm_up=2.0)
    assert float(two.exponents) == pytest.approx(largest, abs=0.01)
    torch.testing.assert_close(two.speed, found.speed, rtol=0.03, atol=0)
    torch.testing.assert_close(two.per_length, two.exponents / two.speed[:, None])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "time", "tolerance"),
    [
        ("lorenz", 40, 0.02),
        ("chen", 20, 0.04),
        ("sprott-b", 200, 0.005),
        ("rossler", 400, 0.002),
        ("halvorsen", 60, 0.02),
        ("thomas", 1000, 0.005),
    ],
)
def test_chaotic_systems_have_the_exponents_of_the_literature(name, time, tolerance):
    system = SYSTEMS[name]
    found = lyapunov_spectrum(
        system.velocity,
        system.sample(256, seed=0),
        dt=system.dt,
        time=time,
        warm_up=time / 10,
        orthogonalise=2,
        pushforward=system.pushforward,
    )
    print(name, found.exponents[0].tolist(), found.standard_errors[0].tolist())
    assert found.stayed == 1
    assert abs(float(found.exponents[0, 0]) - system.lyapunov) < tolerance + 3 * float(found.standard_errors[0, 0])
    assert abs(float(found.exponents[0, 1])) < tolerance and abs(float(found.sum_error)) < 0.01
    assert found.exponents[0, 0] > 5 * found.standard_errors[0, 0]


def test_autograd_and_a_given_pushforward_agree():
    lorenz = Lorenz()
    starts = lorenz.sample(3, seed=0)
    given, found = (
        lyapunov_spectrum(lorenz.velocity, starts, dt=0.01, time=0.2, windows=2, pushforward=way)
        for way in (lorenz.pushforward, None)
    )
    for first, second in zip(given, found, strict=True):
        torch.testing.assert_close(first, second, rtol=1e-9, atol=1e-9)


def test_many_networks_at_once():
    network = MLP(dimension=2, hidden=(8,))
    parameters = network.initial(3, seed=0).double()
    starts = normals(4, 2).expand(3, 4, 2).contiguous()

    def both(parameters, starts, **more):
        return lyapunov_spectrum(
            lambda x: network.velocity(x, parameters),
            starts,
            dt=0.1,
            time=1.0,
            windows=2,
            pushforward=lambda x, z: pushforward(x, parameters, network, z),
            **more,
        )

    together = both(parameters, starts)
    assert together.exponents.shape == (3, 2, 2) and together.stayed.shape == (3,)
    alone = both(parameters[1:2], starts[1:2])
    torch.testing.assert_close(together.exponents[1], alone.exponents[0])
    largest = largest_exponent(lambda x: network.velocity(x, parameters), starts, dt=0.1, time=1.0)
    assert largest.exponents.shape == (3, 1, 1)


def test_windows_add_up():
    lorenz, starts = Lorenz(), Lorenz().sample(4, seed=0)
    whole, parts = (largest_exponent(lorenz.velocity, starts, dt=0.01, time=2.0, windows=windows) for windows in (1, 4))
    torch.testing.assert_close(parts.exponents.mean(0), whole.exponents[0], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(parts.speed.mean(0), whole.speed[0])


def test_starts_that_leave_are_left_out():
    def velocity(x):
        return torch.where(x > 1.5, x * x * x, -x)

    starts = torch.tensor([[0.5], [1.0], [2.0], [0.7]], dtype=DOUBLE)
    for bound in (10.0, math.inf):
        for found in (
            lyapunov_spectrum(velocity, starts, dt=0.01, time=2.0, bound=bound),
            largest_exponent(velocity, starts, dt=0.01, time=2.0, bound=bound),
        ):
            assert found.stayed == 0.75
            assert float(found.exponents) == pytest.approx(-1, abs=1e-3)
    none = largest_exponent(velocity, starts[2:3], dt=0.01, time=2.0, bound=10.0)
    assert none.stayed == 0 and none.exponents.isnan().all()


def test_shear_shows_the_logarithm_that_is_no_chaos():
    """The flow (y, 0) stretches about T-fold in a time T: ln T / T in the first window, ln 2 / T in the second."""
    found = lyapunov_spectrum(
        lambda x: torch.stack([x[..., 1], 0 * x[..., 1]], -1), normals(5, 2), dt=0.5, time=200.0, windows=2
    )
    assert float(found.exponents[0, 0]) == pytest.approx(math.log(100) / 100, rel=0.25)
    assert float(found.exponents[1, 0]) < 0.01


def test_wrong_times_are_refused():
    for arguments in (
        {"dt": 0.0, "time": 1.0},
        {"dt": 0.1, "time": 0.1, "windows": 2},
        {"dt": 0.1, "time": 1.0, "bound": 0.0},
    ):
        for measure in (lyapunov_spectrum, largest_exponent):
            with pytest.raises(ValueError, match=r"expected dt in \(0, time / windows\]"):
                measure(torch.neg, normals(2, 2), **arguments)
