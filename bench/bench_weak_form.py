"""Points per second of the weak form, a library of 30 terms, float64: `python -m bench.bench_weak_form`.

Two passes over the points: the moments, and the covariance that makes the weights. The peers are the formulas as one
writes them, each with the chunk that is best for it; everybody must give the same numbers before anything is timed.
Contestants take turns in one run, each is judged by its best turn, on one thread.

    --parts        where the time of the moments goes
    --stream N     N points (default 100 million) through the whole estimate on two processes, and the peak of memory
    --ordered      the equations beside those of pysindy, which sees the order of the same paths
"""

from __future__ import annotations

import argparse
import os

from bench import timing

timing.one_thread()  # before any library makes its threads

import torch  # noqa: E402
from torch import Tensor  # noqa: E402

from bench import machine, peers_weak_form, peers_weak_ordered, stream_weak_form  # noqa: E402
from bench.peers_weak_form import DIFFUSION, TRUTH  # noqa: E402
from eqflow.fokker_planck import Cosines, from_library, polynomial, random_cosines, weak_form  # noqa: E402
from eqflow.systems import Lorenz  # noqa: E402

POINTS = 2**17
CHUNKS = (2**11, 2**13, 2**15, POINTS)
TOLERANCE = 1e-11  # relative to the largest
PASSES = {
    "moments": (peers_weak_form.moments, peers_weak_form.numpy_moments, peers_weak_form.torch_moments),
    "covariance": (peers_weak_form.covariance, peers_weak_form.numpy_products, peers_weak_form.torch_products),
}


def problem(count: int) -> tuple[Tensor, Cosines, Tensor]:
    """Points of the Lorenz system, so many cosines, and the true coefficients."""
    points = Lorenz(diffusion=DIFFUSION).sample(POINTS, seed=0)
    return points, random_cosines(points.mean(0), points.std(0), count), TRUTH


def eqflow(which: str, points: Tensor, cosines: Cosines, theta: Tensor):
    """A function of nothing that makes the moments or the covariance of the library itself."""
    model = from_library(polynomial("x y z", 2), diffusion=DIFFUSION)
    if which == "moments":
        return lambda: weak_form(points, model, functions=cosines).means[:2]
    conditions = weak_form(points, model, functions=cosines)
    assert conditions.means  # made once, so that only the second pass is timed
    return lambda: (conditions.covariance(theta.flatten()),)


def require_equal(name: str, ours: tuple[Tensor, ...], theirs: tuple[Tensor, ...]) -> None:
    for one, other in zip(ours, theirs, strict=True):
        error = float((one - other).abs().max() / one.abs().max())
        assert error <= TOLERANCE, f"{name} differs from eqflow by {error:.2g}: not timed"


def race(which: str, count: int, seconds: float) -> str:
    """One row: points per second of one pass, and of each peer with its best chunk."""
    setting = problem(count)
    ours = eqflow(which, *setting)
    measure, *peers = PASSES[which]
    runs = {"eqflow": (ours, POINTS)}
    for peer in peers:
        for size in CHUNKS:
            run = lambda peer=peer, size=size: measure(peer, *setting, size)  # noqa: E731
            require_equal(peer.__name__, ours(), run())
            runs[f"{peer.__name__.split('_')[0]} {size}"] = run, POINTS
    speeds = timing.compete(runs, seconds)
    own, cells = speeds.pop("eqflow").best, []
    for kind in ("numpy", "torch"):
        best, name = max((speed.best, name) for name, speed in speeds.items() if name.startswith(kind))
        whole = speeds[f"{kind} {POINTS}"].best
        cells.append(f"{name}: {best / 1e6:.2f} ({own / best:.2f}x) | {whole / 1e6:.2f} ({own / whole:.2f}x)")
    return f"| {which}, {count} | {own / 1e6:.2f} | {' | '.join(cells)} |"


def parts(count: int, seconds: float) -> str:
    """Nanoseconds a point of the steps of the moments, each alone, on one chunk."""
    points, cosines, theta = problem(count)
    size = 2**18 // count
    away = points[:size] - cosines.centre
    model = from_library(polynomial("x y z", 2), diffusion=DIFFUSION)
    angles = torch.addmm(cosines.phases, away, cosines.frequencies.T)
    sine, library = angles.sin(), model.features(points[:size], 0.0)
    speeds = timing.compete(
        {
            "all of it": (eqflow("moments", points, cosines, theta), POINTS),
            "angles": (lambda: torch.addmm(cosines.phases, away, cosines.frequencies.T), size),
            "sine and cosine": (lambda: (angles.sin(), angles.cos()), size),
            "library": (lambda: model.features(points[:size], 0.0), size),
            "product": (lambda: sine.T @ library, size),
        },
        seconds,
    )
    each = {name: 1e9 / speed.best for name, speed in speeds.items()}
    rest = 2 * each["all of it"] - sum(each.values())
    told = ", ".join(f"{name} {nanoseconds:.0f}" for name, nanoseconds in each.items())
    bound = each["all of it"] / each["sine and cosine"]
    return (
        f"{count} functions, ns a point: {told}, the rest (squares, known part, sums, checks) {rest:.0f}. "
        f"At the rate of these sines and cosines, with all else for nothing, a fused kernel would gain {bound:.1f}x."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=12.0, help="for each row (default 12)")
    parser.add_argument("--functions", type=int, nargs="*", default=[40, 150])
    parser.add_argument("--parts", action="store_true")
    parser.add_argument("--stream", type=int, nargs="?", const=10**8, metavar="N")
    parser.add_argument("--ordered", action="store_true")
    options = parser.parse_args()
    print(f"{machine.sentence(machine.describe())}; load {os.getloadavg()[0]:.1f}.\n")
    if options.stream:
        print(stream_weak_form.report(options.stream))
    elif options.ordered:
        print(peers_weak_ordered.report())
    elif options.parts:
        for count in options.functions:
            print(parts(count, options.seconds), flush=True)
    else:
        print(f"{POINTS:,} points, one thread, best of turns, M points/s (eqflow is x times faster).\n")
        print("| pass, functions | eqflow | NumPy, best chunk | in one piece | PyTorch, best chunk | in one piece |")
        print("|---|---|---|---|---|---|")
        for count in options.functions:
            for which in PASSES:
                print(race(which, count, options.seconds), flush=True)


if __name__ == "__main__":
    main()
