"""Training and rollouts of a score of patterns beside the released protocol's structure: `python -m bench.bench_score`.

The structure as released: the paper's U-Net in eager float32; a rollout by stochastic Heun in which flow and gradient
part each evaluate the network at both stages, clamp the clean field, and draw a noise field that is thrown away
whenever the clean field alone is wanted. The networks are also exchanged, so that network and structure can be told
apart. Ours must make the steps of the loop from the same noise before anything is timed. Contestants take turns in one
run, on one thread. `--errors SECONDS` trains both networks for that long, on fields simulated on the fly, and compares
their errors.
"""

from __future__ import annotations

import argparse
import json
import math
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench import timing

timing.one_thread()  # before any library makes its threads

import torch  # noqa: E402
from torch import Tensor  # noqa: E402

from bench import machine  # noqa: E402
from eqflow import ops  # noqa: E402
from eqflow.dynamics import SkewFlow, StepWarning, rollout, skew  # noqa: E402
from eqflow.metrics import denoising_report  # noqa: E402
from eqflow.ops.philox import STREAMS  # noqa: E402
from eqflow.score import PatternDenoiser, PatternShape, PatternTraining, Simulated, Stored, train_pattern  # noqa: E402
from eqflow.score.pattern_train import _Run  # noqa: E402
from eqflow.systems.gray_scott import preset  # noqa: E402

ETA, GAMMA, DT, SIZE = 0.1, 0.5**0.5, 0.01, 128
SHAPES = {"local": PatternShape(), "unet": PatternShape(network="unet", precondition="v")}
CHECKED_STEPS, TOLERANCE = 3, 1e-4
_LEARNED = 64  # fields of the training that is timed


def as_released(score: Any, kernel: Tensor, steps: int, state: Tensor, draw: Callable[[int], Tensor]) -> Tensor:
    """The loop as released; `draw` makes the noise of a step."""
    scale = math.sqrt(2 * ETA * DT)

    def evaluated(state: Tensor) -> Tensor:
        torch.randn_like(state)  # drawn by the step of the scheduler that is asked for the clean field, and thrown away
        return score(state)

    with torch.no_grad():
        for step in range(steps):
            noise = scale * draw(step)
            first = skew.convolve(kernel, evaluated(state)) + ETA * evaluated(state)
            guess = state + DT * first + noise
            second = skew.convolve(kernel, evaluated(guess)) + ETA * evaluated(guess)
            state = state + DT / 2 * (first + second) + noise
    return state


def rollouts(batch: int, device: str) -> dict[str, Callable[[int], Tensor]]:
    """Name -> a turn of some steps."""
    kernel, entries = skew.rotation(GAMMA).to(device), {}
    start = torch.randn(batch, 2, SIZE, SIZE, generator=torch.Generator().manual_seed(0)).to(device)
    for name, shape in SHAPES.items():
        denoiser = PatternDenoiser(shape, [0.0, -0.7], [0.5, 0.2]).requires_grad_(False).to(device)
        eager, ours = denoiser.at(clip=True), denoiser.at().to(torch.device(device))
        ours.denoiser.to(memory_format=torch.channels_last)
        _check(eager, kernel, start)
        entries[f"released structure, {name}"] = lambda steps, eager=eager: as_released(
            eager, kernel, steps, start, lambda step: torch.randn_like(start)
        )
        for half in (None, torch.bfloat16):
            flow = SkewFlow(ours, kernel, ETA, autocast=half)
            words = f"ours, {name}, {'bfloat16' if half else 'float32'}"
            entries[words] = lambda steps, flow=flow: rollout(start, flow, steps, dt=DT, guard_every=None).state
            if device != "cpu":
                entries[f"{words}, graph"] = lambda steps, flow=flow: (
                    rollout(start, flow, steps, dt=DT, guard_every=None, cuda_graph=True).state
                )
    return entries


def _check(score: Any, kernel: Tensor, start: Tensor) -> None:
    def same_noise(step: int) -> Tensor:
        draw = {"seed": 0, "step": step, "stream": STREAMS["langevin"], "device": start.device}
        return ops.normal(len(start), start[0].numel(), **draw).view_as(start)

    loop = as_released(score, kernel, CHECKED_STEPS, start, same_noise)
    ours = rollout(start, SkewFlow(score, kernel, ETA), CHECKED_STEPS, dt=DT, integrator="heun").state
    error = float((ours - loop).norm() / loop.norm())
    if error > TOLERANCE:
        raise AssertionError(f"ours is {error:.2g} away from the loop as released")


def trainings(batch: int, device: str) -> dict[str, Callable[[int], None]]:
    """Name -> a turn of some steps."""
    fields = Stored(torch.randn(_LEARNED, 2, SIZE, SIZE).to(device), held_out=2, seed=0)
    entries: dict[str, Callable[[int], None]] = {"eager U-Net, float32": _eager(batch, fields)}
    for name, shape in SHAPES.items():
        for precision in ("float32", "bfloat16"):
            run = _Run(fields, shape, PatternTraining(batch=batch, precision=precision))

            def steps(count: int, run: Any = run) -> None:
                for _ in range(count):
                    run.advance()

            entries[f"ours, {name}, {precision}"] = steps
    return entries


def _eager(batch: int, fields: Any) -> Callable[[int], None]:
    """A step as a user would write it: the paper's network, v-prediction, AdamW, clipping."""
    denoiser = PatternDenoiser(SHAPES["unet"], [0.0, 0.0], [1.0, 1.0]).to(fields.fields.device)
    adam = torch.optim.AdamW(denoiser.parameters(), lr=1e-3)

    def steps(count: int) -> None:
        for _ in range(count):
            clean = fields.fields[torch.randint(len(fields.fields), (batch,))]
            noised = clean + denoiser.sigma * torch.randn_like(clean)
            adam.zero_grad()
            (denoiser(noised) - clean).square().mean().backward()
            torch.nn.utils.clip_grad_norm_(denoiser.parameters(), 1.0)
            adam.step()

    return steps


def errors(seconds: float, batch: int, device: str) -> dict[str, Any]:
    """What each network has learned of `wave` in the same processor time, its own schedule included."""
    found = {}
    for name, shape in SHAPES.items():
        fields = Simulated(preset("wave").parameters, SIZE, SIZE, held_out=64, seed=0, device=device)
        probe = _Run(fields, shape, PatternTraining(batch=batch))
        begin = time.process_time()
        for _ in range(10):
            probe.advance()
        steps = max(50, round(10 * seconds / (time.process_time() - begin)))
        begin = time.process_time()
        training = PatternTraining(steps=steps, batch=batch, every=steps, rate=3e-3 if name == "local" else 1e-3)
        fit = train_pattern(fields, shape, training)
        took, score = time.process_time() - begin, fit.denoiser.at()
        report = denoising_report(fit.denoiser, fields.apart, score.sigma, train=fields.reference(256))
        found[name] = {"steps": steps, "seconds": took, "fields_per_second": steps * batch / took}
        found[name] |= {"error": report.error.tolist(), "wiener": report.wiener.tolist()}
        u, v = report.error.tolist()
        print(f"{name}: {steps} steps of {batch} in {took:.0f} s, error u {u:.3e} v {v:.3e}, of Wiener's "
              f"{float(report.ratio[0]):.2f} and {float(report.ratio[1]):.2f}", flush=True)  # fmt: skip
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seconds", type=float, default=60.0, help="of each case")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--errors", type=float, default=0.0, help="seconds of training of each network")
    parser.add_argument("--out", type=Path, help="a JSON file for the figures")
    options = parser.parse_args()
    warnings.simplefilter("ignore", StepWarning)
    commit = machine.output_of("git", "rev-parse", "--short=12", "HEAD")
    print(commit, "torch", torch.__version__, options.device, f"{SIZE} x {SIZE}, batch {options.batch}")
    facts: dict[str, Any] = {"commit": commit, "torch": torch.__version__, "device": options.device}
    clock = time.process_time if options.device == "cpu" else time.perf_counter
    for case, entries, first in (
        ("training, fields/s", trainings(options.batch, options.device), "eager U-Net, float32"),
        ("rollout, sample-steps/s", rollouts(options.batch, options.device), "released structure, unet"),
    ):
        turns = {
            name: (lambda run=run: _turn(run, options.device), 2.0 * options.batch) for name, run in entries.items()
        }
        speeds = timing.compete(turns, options.seconds, clock)
        print(f"\n| {case} | best | over {first} | turns |\n|---|---|---|---|")
        for name, speed in speeds.items():
            print(f"| {name} | {speed.best:.3g} | {speed.best / speeds[first].best:.2f} | {speed.turns} |", flush=True)
        facts[case] = {name: speed._asdict() for name, speed in speeds.items()}
    if options.errors:
        facts["errors after the same time"] = errors(options.errors, options.batch, options.device)
    if options.out:
        options.out.write_text(json.dumps(facts, indent=2) + "\n")


def _turn(run: Callable[[int], Any], device: str) -> None:
    run(2)
    if device != "cpu":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
