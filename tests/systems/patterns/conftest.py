"""Every system with its equation written out by hand, beside the terms it names."""

from types import SimpleNamespace

import pytest

from eqflow.ops.gray_scott import laplacian
from eqflow.systems import patterns


def _by_hand(system, state):
    """f(x) from the formula of the literature: each system's docstring, not its `equations`."""

    def bend(field):
        return laplacian(field, system.stencil) / system.dx**2

    u, v = state[:, 0], state[:, -1]
    match system:
        case patterns.Brusselator(a=a, b=b):
            rates = (a - b * u - u + u**2 * v, b * u - u**2 * v)
        case patterns.FitzHughNagumo(a=a, b=b, rate=rate, drive=drive):
            rates = (u - u**3 / 3 - v + drive, rate * (u + a - b * v))
        case patterns.Schnakenberg(a=a, b=b):
            rates = (a - u + u**2 * v, b - u**2 * v)
        case patterns.NoisyGrayScott(feed=feed, kill=kill):
            rates = (feed * (1 - u) - u * v**2, u * v**2 - (feed + kill) * v)
        case patterns.SwiftHohenberg(growth=growth, quadratic=quadratic):
            bent = u + bend(u)
            return [growth * u - bent - bend(bent) + quadratic * u**2 - u**3]
        case patterns.CahnHilliard(stiffness=stiffness):
            return [bend(u**3 - u - stiffness * bend(u))]
    return [rates[0] + system.diffusion_u * bend(u), rates[1] + system.diffusion_v * bend(v)]


SYSTEMS = {
    "brusselator": patterns.Brusselator(),
    "fitzhugh-nagumo": patterns.FitzHughNagumo(diffusion_v=0.3, dx=0.8),
    "schnakenberg": patterns.Schnakenberg(stencil="9-point"),
    "schnakenberg-spots": patterns.Schnakenberg(0.1, 0.9, 0.5, 10.0),
    "gray-scott": patterns.NoisyGrayScott(diffusion=0.0),
    "swift-hohenberg": patterns.SwiftHohenberg(0.2, 1.1, dx=0.9),
    "cahn-hilliard": patterns.CahnHilliard(0.1, 0.7),
}


@pytest.fixture(params=SYSTEMS)
def case(request):
    system = SYSTEMS[request.param]
    return SimpleNamespace(system=system, by_hand=lambda state: _by_hand(system, state))
