"""How large a step may be: stability and noise of each integrator, known before anything runs.

A direction of curvature L under dx = (K s + η s) dt + √(2η) dW, K skew with spectral norm γ, is multiplied in one step
by the growth factor of z = -h L (η + iγ):

    Euler-Maruyama 1 + z,   Heun 1 + z + z²/2,   RK4 1 + z + z²/2 + z³/6 + z⁴/24

Its stationary variance over the right one is 1 / (1 - hL(η² + γ²)/(2η)) for Euler-Maruyama, and
2ηhL |1 + z/2|² / (1 - |1 + z + z²/2|²) for Heun. Exact for a Gaussian, a guide for any other density.
"""

from __future__ import annotations

import math
import warnings

SHOWN_INFLATION = 0.05  # the noise may be this wrong before a warning
_FARTHEST, _GRID = 4.0, 200  # |z| at which no integrator here is stable, and where to look below it


class StepWarning(UserWarning):
    """The step is stable, but so large that the stationary variance is visibly wrong."""


def growth(integrator: str, z: complex) -> complex:
    """What one step makes of a direction with dx/dt = (z/h) x."""
    terms = {"euler-maruyama": 1, "heun": 2, "rk4": 4}[integrator]
    return sum(z**power / math.factorial(power) for power in range(terms + 1))


def stability_limit(integrator: str, *, eta: float, gamma: float, lipschitz: float) -> float:
    """The step size from which on a direction of curvature `lipschitz` grows without bound.

    Args:
        integrator: "euler-maruyama", "heun", "rk4", or "exact-ou", which has no limit.
        eta: strength of the gradient part.
        gamma: spectral norm of the skew part.
        lipschitz: largest curvature of the log density.

    Returns:
        The limit; 0 where no step is stable (no gradient part to damp the growth), infinity where all are.

    Example:
        >>> round(stability_limit("euler-maruyama", eta=0.1, gamma=0.5**0.5, lipschitz=18.1), 4)
        0.0217
    """
    speed = lipschitz * math.hypot(eta, gamma)
    if integrator == "exact-ou" or speed == 0:
        return math.inf
    if eta == 0 and integrator != "rk4":
        return 0.0
    direction = -complex(eta, gamma) / math.hypot(eta, gamma)

    def unstable(size: float) -> bool:
        # At sizes near 0 the growth of a rotation differs from 1 by less than the rounding of this sum.
        return abs(growth(integrator, size * direction)) > 1 + 1e-13

    if integrator == "euler-maruyama":
        return 2 * eta / (lipschitz * (eta**2 + gamma**2))
    high = next(size for k in range(1, _GRID + 1) if unstable(size := k * _FARTHEST / _GRID))
    low = high - _FARTHEST / _GRID
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (low, middle) if unstable(middle) else (middle, high)
    return low / speed


def inflation(integrator: str, dt: float, *, eta: float, gamma: float, lipschitz: float) -> float:
    """Stationary variance over the right one in a direction of curvature `lipschitz`; infinite where it is unstable.

    Example:
        >>> round(inflation("euler-maruyama", 0.01, eta=0.1, gamma=0.5**0.5, lipschitz=18.1), 2)
        1.86
    """
    if integrator not in ("euler-maruyama", "heun") or eta == 0 or lipschitz == 0:
        return 1.0
    z = -dt * lipschitz * complex(eta, gamma)
    damping = 1 - abs(growth(integrator, z)) ** 2
    shape = abs(1 + z / 2) ** 2 if integrator == "heun" else 1.0
    return 2 * eta * dt * lipschitz * shape / damping if damping > 0 else math.inf


def suggested(integrator: str, *, eta: float, gamma: float, lipschitz: float) -> float:
    """A step that keeps the stationary variance within 5 %, or half the limit for RK4, to two digits."""
    limit = stability_limit(integrator, eta=eta, gamma=gamma, lipschitz=lipschitz)
    if integrator == "rk4":
        return _two_digits(limit / 2)
    low, high = 0.0, limit
    for _ in range(60):
        middle = (low + high) / 2
        wrong = abs(inflation(integrator, middle, eta=eta, gamma=gamma, lipschitz=lipschitz) - 1)
        low, high = (middle, high) if wrong < SHOWN_INFLATION else (low, middle)
    return _two_digits(low)


def _two_digits(value: float) -> float:
    if not 0 < value < math.inf:
        return value
    unit = 10.0 ** (math.floor(math.log10(value)) - 1)
    return float(f"{math.floor(value / unit + 1e-9) * unit:.2g}")


def check_step(integrator: str, dt: float, *, eta: float, gamma: float, lipschitz: float | None) -> None:
    """Refuse an unstable step, warn of a noisy one; without a Lipschitz bound nothing is known.

    Raises:
        ValueError: the step is at or above the stability limit.

    Warns:
        StepWarning: the stationary variance is more than 5 % off.
    """
    if eta == 0 and integrator != "rk4":
        raise ValueError(
            f"expected eta above 0 for the integrator {integrator!r}, got 0: without the gradient part each of its "
            "steps grows. Take integrator='rk4'"
        )
    if lipschitz is None or not math.isfinite(lipschitz):
        return
    numbers = {"eta": eta, "gamma": gamma, "lipschitz": lipschitz}
    limit = stability_limit(integrator, **numbers)
    cause = f"a score of Lipschitz constant {lipschitz:.4g}, eta {eta:g} and a kernel of norm {gamma:.4g}"
    if dt >= limit:
        raise ValueError(
            f"expected dt below {limit:.3g}, where {integrator} becomes unstable for {cause}, got {dt:g}: take "
            f"dt={suggested(integrator, **numbers):g}"
        )
    factor = inflation(integrator, dt, **numbers)
    if abs(factor - 1) > SHOWN_INFLATION:
        other = ", or integrator='heun'" if integrator == "euler-maruyama" else ""
        warnings.warn(
            f"with dt={dt:g} {integrator} makes the variance of the stiffest directions {factor:.3g} times the right "
            f"one ({cause}): take dt={suggested(integrator, **numbers):g}{other}",
            StepWarning,
            stacklevel=4,
        )
