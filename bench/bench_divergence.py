"""Loss and gradient of an equilibrium flow beside automatic differentiation: `python -m bench.bench_divergence`.

Raw points in, batches of one size, one common scale, one thread. Contestants take turns in one run, each is judged by
its best turn. Nobody is timed before loss and gradient equal the float64 reference with the same probes.
"Fraction of the bound": multiply-adds of the matrix products over those that the processor can do, see bench/fma.py.
The last lines give the time of whole trainings.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

from bench import timing

timing.one_thread()  # before any library makes its threads

import torch  # noqa: E402

from bench import fma, machine, peers_divergence  # noqa: E402
from eqflow import _C, ops  # noqa: E402
from eqflow.ops import MLP  # noqa: E402
from eqflow.ops.divergence import draw_probes  # noqa: E402

PROBES = 10
TOLERANCE = 2e-4  # of loss and gradient, relative to the largest entry
STEPS = 12_800  # of a training: 512 passes over 50,000 points in batches of 2048
CASES = ((MLP(3, (64, 64), output_bias=False), 2048), (MLP(3, (128, 128, 128), output_bias=False), 1024))


def multiply_adds(network: MLP, objective: str) -> int:
    """Of one row, forward and backward, in matrix products: by tangents, or by the bilinear form where that serves."""
    sizes = [out * into for out, into in network.shapes]
    hidden = sum(sizes[1:])
    if objective == "exact" and len(network.hidden) == 2 and not network.frequencies:
        return 2 * sizes[0] + 3 * hidden + 3 * sizes[1]
    if objective == "sampled":
        return (1 + PROBES) * (2 * sizes[0] + 3 * hidden)
    return 4 * sizes[0] + (1 + network.dimension) * 3 * hidden  # a basis vector meets its share of W_1


def require_equal(name: str, run: Callable, answer: ops.FlowLoss) -> None:
    loss, gradient = run()
    for ours, exact in ((loss.reshape(()), answer.loss[0]), (gradient.flatten(), answer.gradient[0])):
        error = float((ours - exact).abs().max() / exact.abs().max())
        assert error <= TOLERANCE, f"{name} differs from the float64 reference by {error:.2g}: not timed"


def race(network: MLP, rows: int, seconds: float) -> list[str]:
    """Rows of the table: every objective of ours and every peer of one network."""
    generator = torch.Generator().manual_seed(0)
    points, noise = torch.randn(2, rows, network.dimension, generator=generator)
    scores, parameters = 0.3 * noise - points, network.initial(1, seed=0)
    probes = draw_probes(1, rows, PROBES, network.dimension, law="gaussian", seed=0, step=0)[0]
    case = peers_divergence.Case(network, parameters, points, scores, probes)
    doubles = points.double(), scores.double(), parameters.double(), network
    runs, answers = (
        {},
        {o: ops.flow_loss(*doubles, objective=o, probes=PROBES) for o in ("exact", "expected", "sampled")},
    )

    def enter(name: str, make: Callable, objective: str) -> None:
        try:
            run = make()
            require_equal(name, run, answers[objective])
        except ImportError as error:
            return print(f"{name}: skipped, {error}")
        runs[name] = run, 1

    for objective in answers:

        def ours(objective=objective):
            result = ops.flow_loss(points, scores, parameters, network, objective=objective, probes=PROBES)
            return result.loss, result.gradient

        enter(f"eqflow, {objective}", lambda ours=ours: ours, objective)
    for name, peer in peers_divergence.EXACT.items():
        enter(f"{name}, exact", lambda peer=peer: peer(case, True), "exact")
    for name, peer in peers_divergence.SAMPLED.items():
        enter(f"{name}, {PROBES} probes", lambda peer=peer: peer(case, False), "sampled")
    chains = fma.multiply_adds(_C.cpu_isa())
    if chains:
        run, lanes = chains
        rounds = timing.turn_size(run, 0.01, 1000)
        runs["bound"] = (lambda: run(rounds)), lanes * rounds
    speeds = timing.compete(runs, seconds)
    bound = speeds.pop("bound").best if chains else None
    exact, label = speeds["eqflow, exact"].best, f"{len(network.hidden)} x {network.hidden[0]}, batch {rows}"
    lines = []
    for name, speed in speeds.items():
        fraction = ""
        if bound and name.startswith("eqflow"):
            operations = multiply_adds(network, name.removeprefix("eqflow, "))
            fraction = f"{operations * rows * speed.best / bound:.2f}"
        same = speeds["eqflow, sampled" if "probes" in name or "sampled" in name else "eqflow, exact"].best
        times = f"{1e3 / speed.best:.2f} | {same / speed.best:.1f}x | {exact / speed.best:.1f}x"
        lines.append(f"| {label} | {name} | {times} | {fraction} |")
    return lines


def trainings(seconds: float) -> list[str]:
    """Time of a training of the paper's size: 4 octaves, 2 x 64 units, one scale a coordinate."""
    network = MLP(3, (64, 64), frequencies=4)
    points = torch.randn(50_000, 3, generator=torch.Generator().manual_seed(0))
    parameters, runs, steps = network.initial(1, seed=0), {}, 10
    for objective in ("expected", "sampled"):
        options = dict(rates=[1e-2] * steps, rows=2048, objective=objective, probes=PROBES, norm="per-coordinate")
        runs[objective] = (lambda o=options: ops.flow_train(points, -points, parameters, None, network, **o)), steps
    speeds = timing.compete(runs, seconds)
    return [
        f"One model, {name}: {1e3 / speed.best:.2f} ms a step of 2048, {STEPS / speed.best:.0f} s for {STEPS:,} steps."
        for name, speed in speeds.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30.0, help="for each network (default 30)")
    options = parser.parse_args()
    print(f"{machine.sentence(machine.describe())}. Dimension 3, one thread, best of turns.\n")
    print("| hidden layers | who | ms | eqflow, same loss, is faster by | eqflow, exact, by | fraction of the bound |")
    print("|---|---|---|---|---|---|")
    for network, rows in CASES:
        print("\n".join(race(network, rows, options.seconds)), flush=True)
    print("\n" + "\n".join(trainings(options.seconds / 4)))


if __name__ == "__main__":
    main()
