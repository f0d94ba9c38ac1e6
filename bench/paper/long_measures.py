"""What is recorded of a long rollout: the fields beside the data now and then, and whether they still move rightly."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from bench.paper.files import Cache
from bench.paper.long_variants import STEP, Case, Variant
from eqflow.data.checkpoint import Checkpoint
from eqflow.dynamics import rollout
from eqflow.dynamics.observers import Watch, Watcher
from eqflow.dynamics.paired import denoised
from eqflow.metrics import compare_ensembles, displacement_cosines, radial_spectrum, spectrum_log_ratio

TIMES = (0, 2, 5, 10, 20, 40, 60, 80, 100, 150, 200, 250, 300, 350, 400, 500, 600, 800, 1000)
PAIR_TIME, TRUE_STEPS = 2.0, 20
_STEPS_BETWEEN_WORDS = 250


class Record(Watch):
    """The clean fields beside the data at some times; `rows` holds one dict of tensors a time."""

    _kept = ("rows",)

    def __init__(self, case: Case, variant: Variant):
        places = [round(time / variant.dt) for time in TIMES]
        super().__init__(math.gcd(*places))
        self.rows: list[dict[str, Tensor]] = []
        plain = case.flow(replace(variant, anchor=None), case.clean)  # whose D has no force on it
        self._case, self._flow, self._places = case, plain, frozenset(places)

    def observe(self, step: int, time: float, state: Tensor) -> None:
        if step in self._places:
            self.look(time, state)

    def look(self, time: float, state: Tensor) -> None:
        """Append a row."""
        fields, residual = denoised(self._flow, state)
        found = compare_ensembles(fields, self._case.others)._asdict()
        row = {name: torch.as_tensor(value, dtype=torch.float64) for name, value in found.items()}
        power = radial_spectrum(fields).mean(0)
        self.rows.append(
            {**row, "time": torch.tensor(time), "residual": residual, "power": power, "picture": fields[0, -1].clone()}
        )


class Motion(NamedTuple):
    """Cosine of the odd displacement with the true change, over fields and noises, and with that of another field."""

    mean: float
    error: float
    other: float
    other_error: float


@torch.no_grad()
def _clean(case: Case, state: Tensor) -> Tensor:
    return case.score.output(state).contiguous()


def motion(case: Case, variant: Variant, fields: Tensor, noises: int) -> Motion:
    """Whether the flow moves fields as the system does: +K and -K from the same noised starts with the same noise."""
    steps, moved = round(PAIR_TIME / variant.dt), {}
    options = {"dt": variant.dt, "integrator": variant.integrator, "seed": 1, "guard_every": None}
    repeated = fields.repeat(noises, 1, 1, 1)
    start = case.score.noised(repeated, seed=1)
    for sign in (1, -1):
        flow = case.flow(variant, repeated, sign)
        moved[sign] = _clean(case, rollout(start, flow, steps, **options).state)
    odd = ((moved[1] - moved[-1]) / 2)[None]
    truth = case.truth(fields, TRUE_STEPS)
    found = []
    for each in (truth, truth.roll(1, 0)):
        cosines = displacement_cosines(odd, each.repeat(noises, 1, 1, 1)[None])
        found += [float(cosines.mean), float(cosines.error)]
    return Motion(*found)


def follow(
    case: Case, variant: Variant, steps: int, noises: int, cache: Cache, progress: Callable[[str], None]
) -> dict[str, Tensor]:
    """A rollout with its record, stacked over times, and the motion at the start and at the end.

    The trajectory is kept: the same call goes on after a stop, and one of more steps goes on where this one ended.
    """
    key, count = case.key(variant), round(steps * STEP / variant.dt)

    def roll_out() -> dict[str, Tensor]:
        record = Record(case, variant)
        cache.folder.mkdir(parents=True, exist_ok=True)
        start = case.score.noised(case.clean, seed=0)
        words = Watcher(lambda step, time: progress(f"step {step:,} of {count:,}"), _STEPS_BETWEEN_WORDS)
        flow, options = case.flow(variant, case.clean), {"dt": variant.dt, "integrator": variant.integrator, "seed": 0}
        kept = Checkpoint(cache.folder / f"long-{key}.rollout", every=50, seconds=30)
        end = rollout(start, flow, count, observers=[record, words], checkpoint=kept, **options)
        if not math.isclose(float(record.rows[-1]["time"]), end.time):
            record.look(end.time, end.state)
        found = {name: torch.stack([row[name] for row in record.rows]).contiguous() for name in record.rows[0]}
        return found | {"last": _clean(case, end.state)}

    def move() -> dict[str, Tensor]:
        progress("the motion")
        at = [motion(case, variant, fields, noises) for fields in (case.clean, found["last"])]
        return {"motion": torch.tensor(at, dtype=torch.float64)}

    found = cache.get(f"long-{steps}-{case.data}", key, roll_out)
    return found | (cache.get(f"long-motion-{steps}-{noises}", key, move) if variant.gamma and noises else {})


def floor(case: Case, groups: int = 16) -> Tensor:
    """The spectral distance that so few samples of the data itself have, mean and deviation: [2, channels]."""
    parts = case.others[: groups * case.samples].split(case.samples)
    found = torch.stack([spectrum_log_ratio(part, case.others) for part in parts if len(part) == case.samples])
    return torch.stack([found.mean(0), found.std(0)])
