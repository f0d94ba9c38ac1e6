"""Training and rollouts of a score of patterns beside the released protocol's structure: `python -m bench.bench_score`.

`bench.peers_score` is the structure as released. Both networks run in both structures, so that network and structure
can be told apart. The loop must make the steps of ours, by the same integrator and from the same noise, before anything
is timed. Contestants take turns in one run, on one thread; the first is the paper's U-Net in the released structure,
over which all others are. `--errors SECONDS` trains both networks for that long, on fields simulated on the fly, and
compares their errors.
"""

from __future__ import annotations

import argparse
import functools
import json
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench import timing

timing.one_thread()  # before any library makes its threads

import torch  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from bench import machine, peers_score  # noqa: E402
from eqflow import ops  # noqa: E402
from eqflow.dynamics import SkewFlow, rollout, skew  # noqa: E402
from eqflow.metrics import denoising_report  # noqa: E402
from eqflow.ops.philox import STREAMS  # noqa: E402
from eqflow.score import PatternDenoiser, PatternShape, PatternTraining, Simulated, Stored, train_pattern  # noqa: E402
from eqflow.score.pattern_train import _Run  # noqa: E402
from eqflow.systems.gray_scott import preset  # noqa: E402

ETA, GAMMA, DT, SIZE = 0.1, 0.5**0.5, 0.01, 128
NETWORKS = ("unet", "local")
GOALS = {"training": 2.0, "rollout": 3.0}  # of the local network in our structure over the first contestant
CHECKED_STEPS, TOLERANCE = 3, 1e-4
_TURN, _STEPS = 0.5, 10  # seconds and least steps: what a rollout of ours does once is a small part
_LEARNED = 64  # fields of the training that is timed


class Velocity(nn.Module):
    """v as the released structure asks for it, by the network of a denoiser that is preconditioned for v."""

    def __init__(self, denoiser: PatternDenoiser, sigma: float):
        super().__init__()
        self.network, self.timed = denoiser.network, denoiser.shape.network == "unet"
        self.level = 250 * torch.tensor([sigma], device=denoiser.std.device).log()  # as the denoiser has it

    def forward(self, state: Tensor, level: Tensor) -> Tensor:
        return -(self.network(state, self.level.expand(len(state))) if self.timed else self.network(state))


def denoiser(name: str, device: str) -> PatternDenoiser:
    """One whose last layer is not zero."""
    made = PatternDenoiser(PatternShape(network=name, precondition="v"), [0.0, 0.0], [1.0, 1.0]).to(device)
    last = made.network.leave if name == "local" else made.network.model.conv_out
    nn.init.normal_(last.weight, std=0.3 / last.weight[0].numel() ** 0.5)
    return made


def rollouts(batch: int, device: str) -> dict[str, Callable[[int], Any]]:
    """Name -> a turn of some steps."""
    kernel, entries = skew.rotation(GAMMA).to(device), {}
    start = torch.randn(batch, 2, SIZE, SIZE, generator=torch.Generator().manual_seed(0)).to(device)
    for name in NETWORKS:
        made = denoiser(name, device).requires_grad_(False)
        released = peers_score.score(Velocity(made, made.sigma))
        loop = functools.partial(peers_score.rollout, released, kernel, ETA, DT)
        _check(made.at(clip=True), kernel, start, loop)
        entries[f"released structure, {name}"] = functools.partial(loop, state=start)
        layout = torch.channels_last if name == "local" else torch.contiguous_format
        ours = made.at().to(memory_format=layout)
        for half in (None, torch.bfloat16):
            flow = SkewFlow(ours, kernel, ETA, autocast=half)
            words = f"ours, {name}, {'bfloat16' if half else 'float32'}"
            for graph in (False, True)[: 1 if device == "cpu" else 2]:
                entries[words + ", graph" * graph] = functools.partial(
                    rollout, start, flow, dt=DT, guard_every=None, cuda_graph=graph
                )
            if half:
                print(f"{words}: the score moves by {flow.score_error(start):.1e}", flush=True)
    return entries


def _check(score: Any, kernel: Tensor, start: Tensor, loop: Callable[..., Tensor]) -> None:
    def same_noise(step: int) -> Tensor:
        draw = {"seed": 0, "step": step, "stream": STREAMS["langevin"], "device": start.device}
        return ops.normal(len(start), start[0].numel(), **draw).view_as(start)

    peer = loop(steps=CHECKED_STEPS, state=start, draw=same_noise)
    ours = rollout(start, SkewFlow(score, kernel, ETA), CHECKED_STEPS, dt=DT, integrator="heun").state
    error = float((ours - peer).norm() / peer.norm())
    if not error < TOLERANCE:
        raise AssertionError(f"ours is {error:.2g} away from the loop as released")


def trainings(batch: int, device: str) -> dict[str, Callable[[int], None]]:
    """Name -> a turn of some steps."""
    fields = Stored(torch.randn(_LEARNED, 2, SIZE, SIZE).to(device), held_out=2, seed=0)
    entries: dict[str, Callable[[int], None]] = {}
    for name in NETWORKS:
        made = denoiser(name, device)
        entries[f"released structure, {name}"] = peers_score.training(Velocity(made, made.sigma), fields.fields, batch)
        for precision in ("float32", "bfloat16"):
            run = _Run(fields, PatternShape(network=name), PatternTraining(batch=batch, precision=precision))
            entries[f"ours, {name}, {precision}"] = functools.partial(_advance, run)
    return entries


def _advance(run: Any, steps: int) -> None:
    for _ in range(steps):
        run.advance()


def errors(seconds: float, batch: int, device: str) -> dict[str, Any]:
    """What each network has learned of `wave` in the same time, its own schedule included."""
    found = {}

    def now() -> float:
        if device == "cpu":
            return time.process_time()
        torch.cuda.synchronize()
        return time.perf_counter()

    for name in NETWORKS:
        fields = Simulated(preset("wave").parameters, SIZE, SIZE, held_out=64, seed=0, device=device)
        shape = PatternShape(network=name, precondition="edm" if name == "local" else "v")
        probe = _Run(fields, shape, PatternTraining(batch=batch))
        _advance(probe, 2)  # what the first steps do once
        begin = now()
        _advance(probe, 10)
        steps = max(50, round(10 * seconds / (now() - begin)))
        begin = now()
        training = PatternTraining(steps=steps, batch=batch, every=steps, rate=3e-3 if name == "local" else 1e-3)
        fit = train_pattern(fields, shape, training)
        took, score = now() - begin, fit.denoiser.at()
        report = denoising_report(fit.denoiser, fields.apart, score.sigma, train=fields.reference(256))
        found[name] = {"steps": steps, "seconds": took, "fields_per_second": steps * batch / took}
        found[name] |= {"error": report.error.tolist(), "wiener": report.wiener.tolist()}
        u, v = report.error.tolist()
        print(f"{name}: {steps} steps of {batch} in {took:.0f} s, error u {u:.3e} v {v:.3e}, of Wiener's "
              f"{float(report.ratio[0]):.2f} and {float(report.ratio[1]):.2f}", flush=True)  # fmt: skip
    return found


def race(case: str, entries: dict[str, Callable[[int], Any]], batch: int, device: str, seconds: float) -> dict:
    """The table of one case, printed as well."""

    def turn(run: Callable[[int], Any], steps: int) -> None:
        run(steps=steps) if isinstance(run, functools.partial) else run(steps)
        if device != "cpu":
            torch.cuda.synchronize()

    least = {name: _STEPS if case == "rollout" and name.startswith("ours") else 1 for name in entries}
    steps = {name: timing.turn_size(functools.partial(turn, run), _TURN, least[name]) for name, run in entries.items()}
    runs = {name: (functools.partial(turn, run, steps[name]), batch * steps[name]) for name, run in entries.items()}
    clock = time.process_time if device == "cpu" and torch.get_num_threads() == 1 else time.perf_counter
    speeds = timing.compete(runs, seconds, clock)
    first = next(iter(speeds.values()))
    print(f"\n| {case}, fields a second | best | median | over the first: best | median | turns |")
    print("|---|---|---|---|---|---|")
    for name, speed in speeds.items():
        ratios = f"{speed.best / first.best:.2f} | {speed.middle / first.middle:.2f}"
        print(f"| {name} | {speed.best:.3g} | {speed.middle:.3g} | {ratios} | {speed.turns} |", flush=True)
    ours = max(speed.middle for name, speed in speeds.items() if name.startswith("ours, local")) / first.middle
    print(f"{case}: {ours:.1f} times the first by the median, of {GOALS[case]:g} asked for")
    return {name: speed._asdict() for name, speed in speeds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=60.0, help="of each case")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--errors", type=float, default=0.0, help="seconds of training of each network")
    parser.add_argument("--out", type=Path, help="a JSON file for the figures")
    options = parser.parse_args()
    if options.threads > 1:
        timing.free_threads(options.threads)
    warnings.simplefilter("ignore")  # of diffusers, about its own future
    about = machine.describe()
    print(machine.sentence(about), options.device, f"{SIZE} x {SIZE}, batch {options.batch}", flush=True)
    facts: dict[str, Any] = {"machine": about, "device": options.device, "batch": options.batch}
    facts["threads"] = options.threads
    for case, make in (("training", trainings), ("rollout", rollouts)):
        facts[case] = race(case, make(options.batch, options.device), options.batch, options.device, options.seconds)
    if options.errors:
        facts["errors after the same time"] = errors(options.errors, options.batch, options.device)
    if options.out:
        options.out.write_text(json.dumps(facts, indent=2) + "\n")


if __name__ == "__main__":
    main()
