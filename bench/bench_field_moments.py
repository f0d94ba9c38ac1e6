"""Pictures per second of the moments of still pictures beside NumPy and PyTorch: `python -m bench.bench_field_moments`.

All moments of 72 functionals and the 12 terms of cubic reaction and diffusion, of two channels. Peers build the
gradients of all functionals and all terms as arrays, as one writes it, and multiply them with one matrix product; NumPy
takes a picture at a time, PyTorch some at once. Everybody must give the numbers of the float64 reference before
anything is timed. Contestants take turns in one run, each is judged by its best turn, on one thread.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

from bench import timing

timing.one_thread()  # before any library makes its threads

import numpy as np  # noqa: E402
import torch  # noqa: E402
from torch import Tensor  # noqa: E402

from bench import machine, workload  # noqa: E402
from eqflow import ops  # noqa: E402
from eqflow.ops.gray_scott import laplacian  # noqa: E402

FUNCTIONALS = ops.Functionals.up_to(channels=2, degree=6, pair_degree=3)
TERMS = (
    *map(ops.FieldTerm, ops.monomials_up_to(2, 3, lowest=0)),
    ops.FieldTerm((1, 0), "laplacian"),
    ops.FieldTerm((0, 1), "laplacian"),
)
PICTURES = 32  # of a turn
PEER_PICTURES = 4  # of a turn of the peers, which need the same time for each
TOLERANCE = 1e-5  # of the largest moment of a functional


def numpy_moments(state: np.ndarray) -> np.ndarray:
    """One picture after the other, powers and Laplacians of a picture made once."""

    def lap(field: np.ndarray) -> np.ndarray:
        rows = np.roll(field, 1, 0) + np.roll(field, -1, 0)
        return rows + np.roll(field, 1, 1) + np.roll(field, -1, 1) - 4 * field

    moments = []
    for u, v in state:
        u_powers, v_powers = ([np.ones_like(u)] for _ in range(2))
        for _ in range(6):
            u_powers.append(u_powers[-1] * u)
            v_powers.append(v_powers[-1] * v)
        monomials = {(a, b): u_powers[a] * v_powers[b] for a in range(7) for b in range(7 - a)}
        laps = {m: lap(monomials[m]) for m in ops.monomials_up_to(2, 3)}

        def slopes(m, monomials=monomials):
            (a, b), zero = m, 0.0
            return a * monomials[a - 1, b] if a else zero, b * monomials[a, b - 1] if b else zero

        gradients = np.empty((FUNCTIONALS.count, 2, *u.shape))
        for row, m in zip(gradients, FUNCTIONALS.monomials, strict=False):
            row[0], row[1] = slopes(m)
        for row, (g, h) in zip(gradients[len(FUNCTIONALS.monomials) :], FUNCTIONALS.pairs, strict=True):
            for c, (of_g, of_h) in enumerate(zip(slopes(g), slopes(h), strict=True)):
                row[c] = of_g * laps[h] + of_h * laps[g]
        library = np.stack([(laps if term.operator == "laplacian" else monomials)[term.exponents] for term in TERMS])
        products = gradients.reshape(-1, u.size) @ library.reshape(len(TERMS), -1).T
        moments.append(products.reshape(FUNCTIONALS.count, 2, -1) / u.size)
    return np.stack(moments)


def torch_moments(state: Tensor) -> Tensor:
    """All pictures at once."""
    u, v = state.unbind(1)
    monomials = {(a, b): u**a * v**b for a in range(7) for b in range(7 - a)}
    laps = {m: laplacian(monomials[m]) for m in ops.monomials_up_to(2, 3)}
    zero = torch.zeros_like(u)

    def slopes(m):
        a, b = m
        return a * monomials[a - 1, b] if a else zero, b * monomials[a, b - 1] if b else zero

    gradients = [slope for m in FUNCTIONALS.monomials for slope in slopes(m)]
    for g, h in FUNCTIONALS.pairs:
        gradients += [a * laps[h] + b * laps[g] for a, b in zip(slopes(g), slopes(h), strict=True)]
    library = [(laps if term.operator == "laplacian" else monomials)[term.exponents] for term in TERMS]
    products = torch.stack(gradients, 1).flatten(2) @ torch.stack(library, 1).flatten(2).mT
    return products.unflatten(1, (FUNCTIONALS.count, 2)) / u[0].numel()


def require_equal(name: str, moments: Tensor, exact: Tensor) -> float:
    error = float(((moments - exact).abs() / exact.abs().amax((0, 2, 3), keepdim=True)).max())
    assert error <= TOLERANCE, f"{name} differs from the float64 reference by {error:.2g}: not timed"
    return error


def race(size: int, seconds: float) -> list[str]:
    state = workload.developed(PICTURES, size, size)
    some = state[:PEER_PICTURES]
    exact = ops.field_moments(some.double(), FUNCTIONALS, TERMS)
    double, array = some.double(), some.double().numpy()
    runs: dict[str, tuple[Callable[[], object], int]] = {
        "eqflow": (lambda: ops.field_moments(state, FUNCTIONALS, TERMS, backend="native"), PICTURES),
        "NumPy float64": (lambda: numpy_moments(array), PEER_PICTURES),
        "PyTorch float64": (lambda: torch_moments(double), PEER_PICTURES),
        "PyTorch float32": (lambda: torch_moments(some), PEER_PICTURES),
    }
    errors = {
        name: require_equal(name, torch.as_tensor(run())[:PEER_PICTURES].double(), exact)
        for name, (run, _) in runs.items()
    }
    speeds = timing.compete(runs, seconds)
    ours = speeds["eqflow"].best
    return [
        f"| {size} x {size} | {name} | {1e3 / speed.best:.3f} | {ours / speed.best:.1f} | {errors[name]:.0e} |"
        for name, speed in speeds.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=8.0, help="for each size (default 8)")
    parser.add_argument("--sizes", type=int, nargs="*", default=[128, 64])
    options = parser.parse_args()
    print(f"{machine.sentence(machine.describe())}. {FUNCTIONALS.count} functionals, {len(TERMS)} terms, one thread.\n")
    print("| picture | | ms a picture, best turn | eqflow is x times faster | largest error |")
    print("|---|---|---|---|---|")
    for size in options.sizes:
        print("\n".join(race(size, options.seconds)), flush=True)


if __name__ == "__main__":
    main()
