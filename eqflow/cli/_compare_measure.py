"""What a comparison computes: paired rollouts, the truth, nulls, and a film."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from eqflow.cli import _score_source, _stages
from eqflow.cli._words import numbers

BATCH = 8  # samples that move at once, and that a stop can cost
_OTHERS = ("wave", "life", "spirals", "maze")  # systems whose motion is a null
_FRAMES, _FRAME_TIME, _FRAME_STEPS = 75, 0.2, 2  # of the film: model time and system steps a frame
_DEAD = 1e-3  # standard deviation of v in concentrations


class Compared(NamedTuple):
    """What a comparison gives."""

    report: dict[str, Any]
    start: Any  # of one sample, [channels, height, width]
    change: Any  # its true change, and the odd part of the recovered one
    recovered: Any
    film: Any  # [frames, 2, height, width]: truth and recovered
    tensors: None = None  # the folder of a comparison keeps none
    about: None = None


def compare(stored: Any, given: dict[str, Any], stages: Path, where: str, observer: Callable) -> Compared:
    import torch

    from eqflow.metrics import compare_ensembles, fidelity
    from eqflow.systems.gray_scott import preset

    begin, samples = time.monotonic(), given["samples"]
    times, lags = numbers("--times", given["times"], float), numbers("--lags", given["lags"], int)
    observer(_stages.Progress("starts", 0, samples, "fields"))
    clean = _score_source.clean(stored, range(samples), given["size"], given["seed"], given["backend"])
    score = _score_source.at(stored, given["alpha"], bool(given["clip"]), where)
    flow = _score_source.flow(stored, score, given, where, clean.shape[1])
    truth = _changes(stored, stored.system, clean, lags, given["backend"])
    others = {name: preset(name).parameters for name in _OTHERS}
    others = {name: system for name, system in others.items() if system != stored.system}
    paired = _paired(clean.to(where), flow, given, times, stages, observer)
    found = fidelity(
        paired.displacement[1],
        paired.displacement[-1],
        truth,
        none=paired.displacement[0],
        other_truths={name: _changes(stored, system, clean, lags, given["backend"]) for name, system in others.items()},
    )
    ends = paired.start + paired.displacement[1][-1]
    ensemble = compare_ensembles(ends, clean, dead_below=_DEAD / float(stored.factor.flatten()[-1]))
    time_at, lag_at = _main(times, lags)
    report = {
        "name": stored.name,
        "channels": list(stored.channels),
        "size": list(clean.shape[2:]),
        "samples": samples,
        "times": times,
        "lags": lags,
        "main": [time_at, lag_at],
        "dt": given["dt"],
        "eta": flow.eta,
        "kernel": flow.kernel.flatten(1).tolist(),
        "alpha": score.alpha,
        "clip": score.clip,
        "integrator": given["integrator"] or "the best",
        "precision": "float32" if flow.autocast is None else str(flow.autocast).removeprefix("torch."),
        "precision_error": flow.score_error(score.noised(clean[:1].to(where), seed=given["seed"])),
        "clamping": _clamping(score, clean[:BATCH].to(where), given["seed"]),
        "fidelity": found.plain(),
        "residual_noise": {sign: paired.residual[sign].mean(1).tolist() for sign in (1, -1, 0)},
        "ensemble": ensemble.plain(),
        "as_released": _as_released(given, clean.to(where), stored, score, flow, observer),
    }
    film, report["film_ended"] = _film(stored, clean[:1], score, flow, given, where, observer)
    report["seconds"] = round(time.monotonic() - begin, 2)
    report = _finite(report)
    return Compared(report, clean[0], truth[lag_at, 0], paired.odd[time_at, 0].cpu(), torch.as_tensor(film))


def _finite(value: Any) -> Any:
    """Plain values in which None stands for what is not finite, which JSON lacks."""
    if isinstance(value, dict):
        return {str(name): _finite(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _main(times: list[float], lags: list[int]) -> tuple[int, int]:
    """Where the cell is that is reported first: time 2 and 20 steps, or what is nearest."""
    return (
        min(range(len(times)), key=lambda at: abs(times[at] - 2)),
        min(range(len(lags)), key=lambda at: abs(lags[at] - 20)),
    )


def _changes(stored: Any, system: Any, clean: Any, lags: list[int], backend: str) -> Any:
    """What a system does to clean fields in some numbers of steps: [lags, samples, channels, height, width]."""
    import torch

    state, at, found = stored.offset + stored.factor * clean, 0, []
    for lag in lags:
        state = system.run(state, lag - at, backend=backend)
        found.append((state - stored.offset) / stored.factor - clean)
        at = lag
    return torch.stack(found)


def _paired(clean: Any, flow: Any, given: dict[str, Any], times: list[float], stages: Path, observer: Callable) -> Any:
    """The paired rollouts, a few samples at a time; each part is kept until all is done."""
    import torch

    from eqflow.data.checkpoint import Checkpoint
    from eqflow.dynamics.paired import SIGNS, Paired, paired_rollout

    parts, total = [], len(clean) * len(SIGNS) * round(times[-1] / given["dt"])
    for first in range(0, len(clean), BATCH):
        store = Checkpoint(stages / f"{first:05d}.pt")
        kept, before = store.load(), first * total // len(clean)
        if kept is None:
            found = paired_rollout(
                clean[first : first + BATCH],
                flow.score,
                flow.kernel,
                eta=flow.eta,
                dt=given["dt"],
                times=times,
                integrator=given["integrator"],
                seed=given["seed"],
                first_sample=first,
                batch=BATCH,
                autocast=flow.autocast,
                progress=lambda done, _, before=before: observer(
                    _stages.Progress("paired", before + done, total, "sample-steps")
                ),
            )
            kept = {"start": found.start.cpu()}
            for sign in SIGNS:
                kept[f"moved.{sign}"] = found.displacement[sign].cpu()
                kept[f"noise.{sign}"] = found.residual[sign].cpu()
            store.save(kept)
        parts.append(kept)

    def joined(name: str, axis: int) -> Any:
        return torch.cat([part[name] for part in parts], axis)

    moved, noise = ({sign: joined(f"{name}.{sign}", 1) for sign in SIGNS} for name in ("moved", "noise"))
    return Paired(tuple(times), joined("start", 0), moved, noise)


def _clamping(score: Any, clean: Any, seed: int) -> dict[str, float]:
    """At the starts: how many pixels of the clean field lie beyond [-1, 1], and how much clamping changes the score."""
    import torch

    state = score.noised(clean, seed=seed)
    free = dataclasses.replace(score, clip=False)
    with torch.no_grad():
        expected, whole = free.output(state), free(state)
    cut = (expected - expected.clamp(-1, 1)).double()
    return {
        "bites": float((cut != 0).double().mean()),
        "changes": float(score.output_scale * cut.norm() / whole.double().norm()),
    }


def _as_released(
    given: dict[str, Any], clean: Any, stored: Any, score: Any, flow: Any, observer: Callable
) -> list[float] | None:
    """The paper's number, sample by sample."""
    if not given["released"]:
        return None
    from eqflow.dynamics import similarity_as_released

    observer(_stages.Progress("as released", 0, given["released"], "samples"))
    some = clean[: given["released"]]
    change = _changes(stored, stored.system, some.cpu(), [20], given["backend"])[0].to(some)
    clipped = dataclasses.replace(score, clip=True)
    found = similarity_as_released(some, change, clipped, flow.kernel, seed=given["seed"], autocast=flow.autocast)
    return found.tolist()


def _film(stored: Any, clean: Any, score: Any, flow: Any, given: dict[str, Any], where: str, observer: Callable) -> Any:
    """The last channel of truth and recovered dynamics from one start, and why it ended early, if it did."""
    import torch

    from eqflow.dynamics import Diverged, rollout
    from eqflow.dynamics.observers import Seen
    from eqflow.dynamics.paired import denoised

    observer(_stages.Progress("film", 0, _FRAMES, "frames"))
    state = stored.offset + stored.factor * clean
    truth = torch.cat([state, stored.system.run(state, _FRAMES * _FRAME_STEPS, every=_FRAME_STEPS)[0]])
    every, frames = max(1, round(_FRAME_TIME / given["dt"])), []
    start = score.noised(clean.to(where), seed=given["seed"])

    def keep(step: int, _time: float, state: Any) -> None:
        frames.append((stored.offset + stored.factor * denoised(flow, state)[0].cpu())[0])
        observer(_stages.Progress("film", len(frames), _FRAMES + 1, "frames"))

    options = {"dt": given["dt"], "integrator": given["integrator"], "seed": given["seed"]}
    ended = None
    try:
        rollout(start, flow, _FRAMES * every, observers=[Seen(keep, every)], **options)
    except Diverged as error:
        ended = str(error)
    shown = torch.stack(frames)[:, -1]
    kept = shown.flatten(1).isfinite().all(1)
    return torch.stack([truth[: len(shown), -1], shown], 1)[kept], ended
