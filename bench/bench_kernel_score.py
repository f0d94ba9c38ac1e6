"""Pairs per second of the kernel score beside plain PyTorch: `python -m bench.bench_kernel_score`.

Peers take the queries in chunks, so that they fit; each stands there with the chunk that is best for it. Everybody must
give the numbers of the float64 reference before anything is timed. Contestants take turns in one run, each is judged by
its best turn, on one thread. Subnormals are flushed for all: otherwise exp would slow the peers down several times.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable

from bench import timing

timing.one_thread()  # before any library makes its threads

import torch  # noqa: E402
from torch import Tensor  # noqa: E402

from bench import machine  # noqa: E402
from eqflow import ops  # noqa: E402

ALPHA = 0.95
SIZE = 20_000  # points, and queries
PEER_QUERIES = 2048  # of a turn of the peers, which need the same time for each
CHUNKS = (16, 128, 1024)
TOLERANCE = 2e-4  # of peers, relative to the largest score: squares about the origin lose digits
Score = Callable[[Tensor, Tensor], Tensor]  # queries, points -> score


def matmul(queries: Tensor, points: Tensor) -> Tensor:
    """|y - x|^2 = |y|^2 - 2 y x + |x|^2, as one writes it for speed."""
    places = math.sqrt(ALPHA) * points
    exponent = torch.addmm(-0.5 * places.square().sum(1), queries, places.T).div_(1 - ALPHA)
    return (exponent.softmax(1) @ places - queries) / (1 - ALPHA)


def cdist(queries: Tensor, points: Tensor) -> Tensor:
    """The formula as one writes it: distances, exponential, weighted mean."""
    places = math.sqrt(ALPHA) * points
    exponent = torch.cdist(queries, places).square_().div_(-2 * (1 - ALPHA))
    weights = exponent.sub_(exponent.amax(1, keepdim=True)).exp_()
    return (weights @ places / weights.sum(1, keepdim=True) - queries) / (1 - ALPHA)


def in_chunks(score: Score, size: int) -> Score:
    return lambda queries, points: torch.cat([score(part, points) for part in queries.split(size)])


def fused(queries: Tensor, points: Tensor, backend: str = "native") -> Tensor:
    return ops.kernel_score(queries, points, alpha=ALPHA, backend=backend).score


def cloud(dimension: int) -> tuple[Tensor, Tensor]:
    """Queries, each made from its point, and points."""
    generator = torch.Generator().manual_seed(0)
    points, noise = torch.randn(2, SIZE, dimension, generator=generator)
    return math.sqrt(ALPHA) * points + math.sqrt(1 - ALPHA) * noise, points


def require_equal(name: str, score: Score, queries: Tensor, points: Tensor, tolerance: float) -> float:
    some = queries[:64]
    exact = ops.kernel_score(some.double(), points.double(), alpha=ALPHA).score
    error = float((score(some, points) - exact).abs().max() / exact.abs().max())
    assert error <= tolerance, f"{name} differs from the float64 reference by {error:.2g}: not timed"
    return error


def race(dimension: int, seconds: float) -> str:
    """One row: rate and error of the fused kernel, and of each peer with its best chunk."""
    queries, points = cloud(dimension)
    some = queries[:PEER_QUERIES]
    error = require_equal("eqflow", fused, queries, points, 4e-6)
    runs = {"eqflow": (lambda: fused(queries, points), SIZE * SIZE)}
    errors = {}
    for peer in (matmul, cdist):
        errors[peer.__name__] = require_equal(peer.__name__, peer, queries, points, TOLERANCE)
        for size in CHUNKS:
            run = in_chunks(peer, size)
            runs[f"{peer.__name__} {size}"] = (lambda run=run: run(some, points)), PEER_QUERIES * SIZE
    speeds = timing.compete(runs, seconds)
    ours, cells = speeds.pop("eqflow").best, []
    for peer, wrong in errors.items():
        best, name = max((speed.best, name) for name, speed in speeds.items() if name.startswith(peer))
        cells.append(f"{name}: {best / 1e9:.3f} ({ours / best:.1f}x, error {wrong:.0e})")
    return f"| {dimension} | {ours / 1e9:.2f} | {error:.0e} | {', '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=8.0, help="for each row (default 8)")
    parser.add_argument("--dimensions", type=int, nargs="*", default=[1, 2, 3, 8, 16])
    options = parser.parse_args()
    torch.set_flush_denormal(True)
    print(f"{machine.sentence(machine.describe())}. {SIZE:,} points, {SIZE:,} queries, one thread, best of turns.\n")
    print("| d | eqflow, G pairs/s | error | peer and chunk: G pairs/s (eqflow is x times faster, error) |")
    print("|---|---|---|---|")
    for dimension in options.dimensions:
        print(race(dimension, options.seconds), flush=True)


if __name__ == "__main__":
    main()
