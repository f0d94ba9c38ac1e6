"""Figure 3: Gray-Scott and its recovered dynamics from the same starts, for four patterns.

Above the truth, below D(x_t) of dx = (K s + eta s) dt + sqrt(2 eta) dW with the score that ships with the package, at
the same five times; one unit of model time stands beside ten steps of the system, which is about where they are most
alike. Solitons of `life` are followed in both with trackpy, where that is installed: how many, how fast, how long they
live. Minutes on one core.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bench.paper.report import Report
from bench.paper.study import Study, run
from eqflow.dynamics import SkewFlow, rollout, skew
from eqflow.dynamics.observers import Seen
from eqflow.dynamics.paired import denoised
from eqflow.metrics import spectrum_log_ratio
from eqflow.score import pretrained

PATTERNS = ("life", "wave", "spirals", "maze")
_DT, _ETA, _GAMMA, _STEPS_A_UNIT = 0.02, 0.1, -math.sqrt(0.5), 10
_SHOWN = (0.0, 0.25, 0.5, 1.0)  # of the whole time
_THRESHOLD, _REACH = 0.1, 3.0  # of v in concentrations; pixels from frame to frame


class Films(NamedTuple):
    """Frames of concentrations from one start, [frames, samples, channels, height, width]."""

    truth: Tensor
    recovered: Tensor


def films(pattern: str, samples: int, frames: int, size: int) -> Films:
    """A frame every tenth of a unit of model time, and every system step."""
    stored = pretrained(pattern)
    score, every = stored.denoiser.at(), round(1 / (_STEPS_A_UNIT * _DT))
    score.denoiser.to(memory_format=torch.channels_last)
    clean = stored.fields(range(samples), size=(size, size))
    state = stored.offset + stored.factor * clean
    truth = torch.cat([state[:, None], stored.system.run(state, frames, every=1)], 1).transpose(0, 1)
    flow, seen = SkewFlow(score, skew.rotation(_GAMMA), _ETA), []
    keep = Seen(lambda _step, _time, x: seen.append(stored.offset + stored.factor * denoised(flow, x)[0]), every)
    rollout(score.noised(clean, seed=0), flow, frames * every, dt=_DT, observers=[keep])
    return Films(truth, torch.stack(seen))


def solitons(film: Tensor) -> dict[str, float] | None:
    """Of v, over all samples: mean count, median speed in pixels a frame, mean lifetime in frames."""
    try:
        from eqflow.metrics import track_solitons

        tracks = [track_solitons(film[:, at, 1], threshold=_THRESHOLD, reach=_REACH) for at in range(film.shape[1])]
    except ImportError:
        return None
    counts = torch.cat([each.count.double() for each in tracks])
    speeds, lives = (torch.cat([getattr(each, name).double() for each in tracks]) for name in ("speed", "lifetime"))
    speeds = speeds[speeds.isfinite()]
    return {
        "count": float(counts.mean()),
        "speed": float(speeds.median()) if len(speeds) else math.nan,
        "lifetime": float(lives.mean()) if len(lives) else math.nan,
    }


def _draw(made: dict[str, Films]) -> Any:
    from matplotlib.figure import Figure

    columns = len(_SHOWN)
    sheet = Figure(figsize=(2.1 * columns * 2, 2.2 * 2 * math.ceil(len(made) / 2)), layout="constrained")
    blocks = sheet.subfigures(math.ceil(len(made) / 2), 2, squeeze=False)
    for block, (pattern, film) in zip(blocks.flatten(), made.items(), strict=False):
        grid = block.subplots(2, columns, squeeze=False)
        block.suptitle(pattern, fontsize=10)
        low, high = float(film.truth[:, 0, 1].min()), float(film.truth[:, 0, 1].max())
        for row, (name, frames) in enumerate((("truth", film.truth), ("recovered", film.recovered))):
            for column, share in enumerate(_SHOWN):
                axes, at = grid[row, column], round(share * (len(frames) - 1))
                axes.imshow(frames[at, 0, 1].numpy(), cmap="magma", vmin=low, vmax=high, interpolation="nearest")
                axes.set_xticks([])
                axes.set_yticks([])
                if row == 0:
                    axes.set_title(f"{at} steps", fontsize=8)
                if column == 0:
                    axes.set_ylabel(name, fontsize=8)
    return sheet


def work(study: Study) -> int:
    report = Report(study, "figure3_patterns", "Figure 3: truth and recovered dynamics from the same starts")
    frames, size = (4, 64) if study.quick else (100, 128)
    made, rows, tracked = {}, [], []
    for pattern in PATTERNS:
        with report.part(pattern):
            film = made[pattern] = films(pattern, study.models, frames, size)
            ratio = spectrum_log_ratio(film.recovered[-1], film.truth[0])
            own = spectrum_log_ratio(film.truth[-1], film.truth[0])
            if pattern == "maze":
                report.check("maze: spectrum of u and v", ratio.tolist(), "below 0.5", high=0.5)
            both = film.recovered[-1], film.truth[-1]
            means = [f"{float(fields[:, 1].mean()):.4f}" for fields in (film.truth[0], *reversed(both))]
            rows.append([pattern, *(f"{float(value):.2f}" for value in (*ratio, *own)), *means])
            if pattern == "life" and (found := [solitons(part) for part in film]) != [None, None]:
                report.keep(solitons=dict(zip(("truth", "recovered"), found, strict=True)))
                for name, numbers in zip(("truth", "recovered"), found, strict=True):
                    tracked.append([name, *(f"{numbers[key]:.3g}" for key in ("count", "speed", "lifetime"))])
    report.table(
        f"After {frames} steps of the system and {frames / _STEPS_A_UNIT:g} units of model time",
        ["pattern", "spectrum u", "spectrum v", "of the truth, u", "v", "mean v, start", "truth", "recovered"],
        rows,
    )
    report.note("Spectrum: mean |log ratio| to that of the starts, wave numbers 1 to 24.")
    if tracked:
        columns = ["solitons of life", "in a frame", "speed, pixels a step", "lifetime, frames"]
        report.table("Solitons followed over the torus", columns, tracked)
    if made:
        report.draw(_draw(made))
    return report.finish()


def main(argv: list[str] | None = None) -> None:
    run(work, __doc__, argv, models=4)


if __name__ == "__main__":
    main()
