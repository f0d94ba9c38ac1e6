"""Numbers per second of a Langevin update beside the same step in PyTorch: `python -m bench.bench_langevin`.

One pass x' = A x + B f + c xi, and a whole step of stochastic Heun from given outputs. Without noise, everybody must
give the numbers of the float64 reference before anything is timed. Contestants take turns in one run, each is judged by
its best turn, on one thread. The share of the copy is that of the 12 bytes a number that a pass must move.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable

from bench import timing

timing.one_thread()  # before any library makes its threads

import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from torch import Tensor  # noqa: E402

from bench import machine  # noqa: E402
from eqflow import ops  # noqa: E402
from eqflow.ops import langevin  # noqa: E402

ETA, DT, SCALES = 0.1, 0.01, (-1.0, -4.136)  # a v-predicting network at alpha = 0.9448
TOLERANCE = 1e-5  # of peers, which sum in another order
Step = Callable[[float], Tensor]  # noise scale -> the next state

# Channels, radius, height and width, batch on a CPU and on a GPU.
CASES = [
    (2, 0, 128, 64, 4096),
    (4, 0, 128, 64, 4096),
    (16, 0, 128, 8, 512),
    (2, 1, 128, 16, 2048),
    (2, 2, 128, 16, 2048),
]


def skew_kernel(channels: int, radius: int) -> Tensor:
    size = 2 * radius + 1
    kernel = torch.randn(channels, channels, size, size, generator=torch.Generator().manual_seed(0))
    kernel = kernel - kernel.transpose(0, 1).flip(2, 3)
    return kernel / kernel.norm()


def convolve(kernel: Tensor, field: Tensor) -> Tensor:
    radius = kernel.shape[-1] // 2
    return F.conv2d(F.pad(field, [radius] * 4, mode="circular") if radius else field, kernel)


def textbook(state: Tensor, output: Tensor, kernel: Tensor) -> Step:
    """The formula as one writes it."""

    def step(noise_scale: float) -> Tensor:
        score = SCALES[0] * state + SCALES[1] * output
        return state + DT * (convolve(kernel, score) + ETA * score) + noise_scale * torch.randn_like(state)

    return step


def matrices(state: Tensor, output: Tensor, update: langevin.Update) -> Step:
    """A x + B f by matrix products, in place where that is possible: the fastest eager code we know for 1x1."""
    a, b = update.state_kernel[:, :, 0, 0], update.output_kernel[:, :, 0, 0]
    x, f = state.flatten(2), output.flatten(2)

    def step(noise_scale: float) -> Tensor:
        return torch.randn_like(x).mul_(noise_scale).add_(a @ x).add_(b @ f).view_as(state)

    return step


def compiled(state: Tensor, output: Tensor, update: langevin.Update) -> Step:
    """A x + B f written out by channel and shift, so that torch.compile can fuse all but the noise."""
    kernels = [kernel.tolist() for kernel in update[:2]]
    channels, radius = state.shape[1], update.state_kernel.shape[-1] // 2
    shifts = [(u, v) for u in range(-radius, radius + 1) for v in range(-radius, radius + 1)]

    def expression(state: Tensor, output: Tensor, noise: Tensor) -> Tensor:
        sums = [0.0] * channels
        for field, kernel in zip((state, output), kernels, strict=True):
            for u, v in shifts:
                moved = field.roll((-u, -v), (2, 3)) if radius else field
                for o in range(channels):
                    for i in range(channels):
                        sums[o] = sums[o] + kernel[o][i][u + radius][v + radius] * moved[:, i]
        return torch.stack(sums, 1) + noise

    run = torch.compile(expression, dynamic=False)  # on a CPU its own random numbers are ten times as slow as PyTorch's
    return lambda noise_scale: run(state, output, torch.randn_like(state).mul_(noise_scale))


def contestants(channels: int, radius: int, size: int, batch: int, device: str) -> dict[str, Step]:
    """Name -> step, each checked against the reference."""
    generator = torch.Generator().manual_seed(1)
    state, output = (torch.randn(batch, channels, size, size, generator=generator).to(device) for _ in range(2))
    kernel = skew_kernel(channels, radius)
    update = langevin.euler_maruyama(kernel, ETA, DT, *SCALES)
    update = update._replace(state_kernel=update[0].to(device), output_kernel=update[1].to(device))
    half = output.bfloat16()

    def ours(output: Tensor) -> Step:
        return lambda noise_scale: ops.langevin_update(state, output, *update[:2], noise_scale, seed=0, step=0)

    entries = {"eqflow": ours(output), "eager": textbook(state, output, kernel.to(device))}
    if radius == 0:
        entries["eager, matrices"] = matrices(state, output, update)
    if channels * (2 * radius + 1) ** 2 <= 18:  # beyond, compiling takes minutes
        entries["torch.compile"] = compiled(state, output, update)
    few = slice(0, 2)
    options = {"seed": 0, "step": 0, "backend": "reference"}
    exact = ops.langevin_update(state[few].double(), output[few].double(), *update[:2], 0.0, **options)
    for name, step in entries.items():
        error = float((step(0.0)[few] - exact).abs().max() / exact.abs().max())
        if not error < TOLERANCE:
            raise AssertionError(f"{name} is wrong: it differs from the float64 reference by {error:.2g}")
    return entries | {"eqflow, bfloat16 output": ours(half), "copy": lambda _: state.clone()}


def heun_contestants(channels: int, size: int, batch: int, device: str) -> dict[str, Step]:
    """A step of Heun whose outputs are given: two passes, or four scores as the released protocol takes them."""
    state, output, later = (torch.randn(batch, channels, size, size, device=device) for _ in range(3))
    kernel = skew_kernel(channels, 0).to(device)
    first, second = langevin.heun(kernel, ETA, DT, *SCALES)

    def ours(noise_scale: float) -> Tensor:
        moved = ops.langevin_update(state, output, *first[:2], noise_scale, seed=0, step=0)
        arguments = (moved, later, *second[:2], noise_scale / 2)
        return ops.langevin_update(*arguments, seed=0, step=0, base=state, base_scale=0.5)

    def four(noise_scale: float) -> Tensor:
        def score(x: Tensor, f: Tensor) -> Tensor:
            return SCALES[0] * x + SCALES[1] * f

        noise = noise_scale * torch.randn_like(state)
        here = convolve(kernel, score(state, output)) + ETA * score(state, output)
        guess = state + DT * here + noise
        there = convolve(kernel, score(guess, later)) + ETA * score(guess, later)
        return state + DT / 2 * (here + there) + noise

    error = float((ours(0.0) - four(0.0)).abs().max() / four(0.0).abs().max())
    if not error < TOLERANCE:
        raise AssertionError(f"the two passes differ from the four scores by {error:.2g}")
    return {"eqflow": ours, "eager, four scores": four}


def race(entries: dict[str, Step], numbers: int, seconds: float, device: str) -> dict[str, timing.Speed]:
    scale = math.sqrt(2 * ETA * DT)

    def turn(step: Step) -> None:
        step(scale)
        if device != "cpu":
            torch.cuda.synchronize()

    return timing.compete({name: (lambda step=step: turn(step), numbers) for name, step in entries.items()}, seconds)


def lines(case: str, speeds: dict[str, timing.Speed]) -> list[str]:
    """Rows of the table."""
    speeds, ours = dict(speeds), speeds["eqflow"].best
    copy = speeds.pop("copy", None)
    share = f"{12 * ours / (8 * copy.best):.0%}" if copy else ""
    return [
        f"| {case} | {name} | {speed.best / 1e6:.0f} | {ours / speed.best:.2f} | {share if name == 'eqflow' else ''} |"
        for name, speed in speeds.items()
    ]


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each case")
    options = parser.parse_args()
    print(machine.sentence(machine.describe()), options.device)
    print("\n| case | contestant | M numbers/s | eqflow over it | of the copy |\n|---|---|---|---|---|")
    for channels, radius, size, on_cpu, on_gpu in CASES:
        batch = on_cpu if options.device == "cpu" else on_gpu
        shape, width = (channels, size, batch), 2 * radius + 1
        entries = contestants(channels, radius, size, batch, options.device)
        speeds = race(entries, math.prod(shape) * size, options.seconds, options.device)
        print(*lines(f"{channels} channels, {width}x{width}", speeds), sep="\n", flush=True)
    entries = heun_contestants(2, 128, batch, options.device)
    speeds = race(entries, 2 * 128 * 128 * batch, options.seconds, options.device)
    print(*lines("2 channels, 1x1, Heun", speeds), sep="\n")


if __name__ == "__main__":
    main()
