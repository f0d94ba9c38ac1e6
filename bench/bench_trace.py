"""Loss and gradient of an image flow, exact against probes: `python -m bench.bench_trace`.

The field is 3x3, 1x1, 1x1 circular convolutions with 32 hidden channels on 2 channels of 128 x 128, batch 2. Every
contestant computes mean (div v + v . s)^2 and its gradient in the parameters. The two exact ones must agree in both
before anything is timed. Contestants take turns in one run, each is judged by its best turn, on one thread.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

from bench import timing

timing.one_thread()  # before any library makes its threads

import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from torch import Tensor  # noqa: E402

from bench import machine  # noqa: E402
from eqflow import ops  # noqa: E402
from eqflow.ops.divergence import draw_probes  # noqa: E402

BATCH, CHANNELS, HIDDEN, SIZE, PROBES = 2, 2, 32, 128, 4
Divergence = Callable[[Tensor, list[Tensor]], tuple[Tensor, Tensor]]  # x, parameters -> v, div v


def parameters() -> list[Tensor]:
    """Three kernels, then three biases."""
    generator = torch.Generator().manual_seed(0)
    shapes = (HIDDEN, CHANNELS, 3, 3), (HIDDEN, HIDDEN, 1, 1), (CHANNELS, HIDDEN, 1, 1)
    kernels = [torch.randn(s, generator=generator) / (s[1] * s[2] * s[3]) ** 0.5 for s in shapes]
    return [value.requires_grad_() for value in (*kernels, *(torch.zeros(s[0]) for s in shapes))]


def convolve(x: Tensor, kernel: Tensor, bias: Tensor | None = None) -> Tensor:
    radius = kernel.shape[-1] // 2
    return F.conv2d(F.pad(x, [radius] * 4, mode="circular"), kernel, bias)


def field(values: list[Tensor]) -> Callable[[Tensor], Tensor]:
    def velocity(x: Tensor) -> Tensor:
        for index in range(3):
            x = convolve(F.silu(x) if index else x, values[index], values[3 + index])
        return x

    return velocity


def identity(x: Tensor, values: list[Tensor]) -> tuple[Tensor, Tensor]:
    return ops.convolution_divergence(x, values[:3], values[3:])


def coloured(x: Tensor, values: list[Tensor]) -> tuple[Tensor, Tensor]:
    return ops.field_divergence(field(values), x, method="coloured", radius=1)


def probes(x: Tensor, values: list[Tensor]) -> tuple[Tensor, Tensor]:
    return ops.field_divergence(field(values), x, method="probes", probes=PROBES, law="rademacher")


def random_directions(x: Tensor) -> Tensor:
    """[probes, batch, channels, height, width]."""
    drawn = draw_probes(1, len(x), PROBES, x[0].numel(), law="rademacher", seed=0, step=0)
    return drawn[0].transpose(0, 1).reshape(PROBES, *x.shape)


def by_hand(x: Tensor, values: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Tangents written out, which share what v needs anyway."""
    directions = random_directions(x)
    tangent = directions.flatten(0, 1)
    for index in range(3):
        if index:
            gate = x.sigmoid()
            slope = gate * (1 + x * (1 - gate))
            tangent = (slope * tangent.unflatten(0, (PROBES, -1))).flatten(0, 1)
            x = x * gate
        x, tangent = convolve(x, values[index], values[3 + index]), convolve(tangent, values[index])
    return x, (directions * tangent.view_as(directions)).sum((2, 3, 4)).mean(0)


def double_backward(x: Tensor, values: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Vector-Jacobian products with a second graph, as the paper has it."""
    x = x.detach().requires_grad_()
    velocity, total = field(values)(x), 0.0
    for direction in random_directions(x):
        (pulled,) = torch.autograd.grad(velocity, x, direction, create_graph=True)
        total = total + (pulled * direction).sum((1, 2, 3))
    return velocity, total / PROBES


def step(divergence: Divergence, x: Tensor, scores: Tensor, values: list[Tensor]) -> list[Tensor]:
    """The loss and its gradient."""
    velocity, trace = divergence(x, values)
    loss = (trace + (velocity * scores).sum((1, 2, 3))).square().mean()
    return [loss.detach(), *torch.autograd.grad(loss, values)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30.0, help="for all contestants (default 30)")
    options = parser.parse_args()
    torch.set_flush_denormal(True)
    generator = torch.Generator().manual_seed(1)
    x, scores = torch.randn(2, BATCH, CHANNELS, SIZE, SIZE, generator=generator)
    values = parameters()
    for ours, theirs in zip(step(identity, x, scores, values), step(coloured, x, scores, values), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=float(1e-4 * theirs.abs().max()))
    contestants = {
        "identity (exact)": identity,
        f"{4 * CHANNELS} coloured tangents (exact)": coloured,
        f"{PROBES} tangents, written out": by_hand,
        f"{PROBES} tangents, field_divergence": probes,
        f"{PROBES} probes, double backward": double_backward,
    }
    runs = {name: (lambda run=run: step(run, x, scores, values), 1.0) for name, run in contestants.items()}
    speeds = timing.compete(runs, options.seconds)
    ours = next(iter(speeds.values())).best
    print(f"{machine.sentence(machine.describe())}. One thread, best of turns; d = {x[0].numel():,}, batch {BATCH}.\n")
    print("| loss and gradient | ms | of the identity |\n|---|---|---|")
    for name, speed in speeds.items():
        print(f"| {name} | {1e3 / speed.best:.1f} | {ours / speed.best:.1f}x |")


if __name__ == "__main__":
    main()
