"""Cell updates per second on the device: three stages of bench.gpu."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from bench import peers, workload
from bench.gpu_setting import Setting, attempt, rate
from eqflow import ops


def throughput(setting: Setting, backend: str, batch: int, height: int, width: int, stencil="5-point", dt=1.0) -> dict:
    """Cell updates per second of our own kernel, after it has given the reference's answer."""
    state, arguments = workload.developed(batch, height, width).to(setting.device), workload.arguments(stencil, dt)

    def run(steps: int, state: Tensor = state) -> Tensor:
        return ops.gray_scott(state, steps, **arguments, backend=backend)

    first = state[:2]
    deviation = workload.require_equal(
        backend, run(workload.CHECKED_STEPS, first), workload.expected(first, stencil, dt)
    )
    probe = setting.times(lambda: run(64), turns=2)[-1]
    steps = 8 if setting.dry else max(64, min(10_000, int(64 * 0.06 / probe))) // 8 * 8
    taken = setting.times(lambda: run(steps))
    return {"steps": steps, "deviation": deviation, **rate("updates_per_second", batch * height * width * steps, taken)}


def _gray_scott(setting: Setting, backend: str, cases: list[tuple]) -> Iterator[dict]:
    if backend not in setting.backends():
        yield {"backend": backend, "skipped": ops.backends(setting.device)[backend]}
        return
    for batch, height, width, *more in [(2, 12, 16), (1, 16, 12)] if setting.dry else cases:
        case = {"backend": backend, "grid": f"{height} x {width}", "batch": batch, "variant": ", ".join(map(str, more))}
        yield attempt(case, lambda arguments=(batch, height, width, *more): throughput(setting, backend, *arguments))


def gray_scott(setting: Setting) -> Iterator[dict]:
    """The native kernels over batches and grids."""
    cases = [(batch, 128, 128) for batch in (8192, 132, 264, 1056, 2112)] + [(64, 1024, 1024), (1, 1024, 1024)]
    cases += [(512, 256, 256), (128, 512, 512), (16, 2048, 2048), (2112, 64, 64), (1056, 100, 100), (1056, 96, 160)]
    cases += [(1056, 128, 128, "9-point"), (1056, 128, 128, "5-point", 0.5)]
    yield from _gray_scott(setting, "native", cases)


def triton(setting: Setting) -> Iterator[dict]:
    """The Triton kernel over some of them."""
    yield from _gray_scott(setting, "triton", [(132, 128, 128), (1056, 128, 128), (8192, 128, 128), (32, 1024, 1024)])


def peers_of_gray_scott(setting: Setting) -> Iterator[dict]:
    """Other libraries beside our own kernel, 128 x 128 and 1024 x 1024."""
    for batch, size in ((1056, 128), (8, 1024)):
        if setting.dry:
            batch, size = 2, 16
        case = {"grid": f"{size} x {size}", "batch": batch}
        yield attempt({"by": "eqflow", **case}, lambda b=batch, s=size: throughput(setting, "native", b, s, s))
        state = workload.developed(batch, size, size).to(setting.device)
        answer = workload.expected(state[:2])
        for name, peer in peers.GRAY_SCOTT_ON_GPU.items():
            if setting.dry and name == "torch.compile":
                continue  # it takes half a minute to compile

            def measure(peer=peer, state=state, answer=answer, name=name) -> dict:
                advance = peer(state)
                result = peers.as_tensor(advance(workload.CHECKED_STEPS))[:2]
                deviation = workload.require_equal(name, result, answer, workload.PEER_TOLERANCE)
                steps = 8 if setting.dry else 200
                taken = setting.times(lambda: advance(steps), turns=5)
                return {
                    "steps": steps,
                    "deviation": deviation,
                    **rate("updates_per_second", state.numel() / 2 * steps, taken),
                }

            yield attempt({"by": name, **case}, measure)
