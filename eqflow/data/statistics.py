"""Mean, standard deviation and root mean square of the fields, exact sums whatever the order of the work."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
import yaml

from eqflow.data.shard import FIELDS

Sums = dict[str, dict[str, list[float]]]


def sample_sums(
    frames: np.ndarray,  # [frames, 2, height, width] float32
) -> np.ndarray:
    """Sum and sum of squares of each frame and of each change between frames: float64 [2 frames - 1, 2, 2]."""
    result = np.empty((2 * len(frames) - 1, 2, 2))
    squares = previous = None
    for index, frame in enumerate(frames):  # one at a time: the work stays in the cache
        fields = frame.reshape(2, -1).astype(np.float64)
        rows = [(index, fields)]
        if previous is not None:
            rows.append((len(frames) + index - 1, np.subtract(fields, previous, out=previous)))
        for row, values in rows:
            squares = np.square(values, out=squares)
            result[row, :, 0], result[row, :, 1] = values.sum(-1), squares.sum(-1)
        previous = fields
    return result


def shard_sums(
    rows: np.ndarray,  # [samples, 2 frames - 1, 2, 2]: of `sample_sums`
    cells: int,
) -> Sums:
    """Count, sum and sum of squares of a shard, as plain values."""
    frames = (rows.shape[1] + 1) // 2
    result: Sums = {}
    for suffix, part in (("", rows[:, :frames]), ("_delta", rows[:, frames:])):
        count = part.shape[0] * part.shape[1] * cells
        result[suffix] = {
            name: [count, *(math.fsum(part[:, :, field, power].ravel()) for power in (0, 1))]
            for field, name in enumerate(FIELDS)
        }
    return result


def _moments(rows: Sequence[Sequence[float]]) -> dict[str, float]:
    count, total, squares = (math.fsum(column) for column in zip(*rows, strict=True))
    mean, square = total / count, squares / count
    return {"mean": mean, "std": math.sqrt(max(0.0, square - mean * mean)), "rms": math.sqrt(square)}


def statistics_yaml(shards: Iterable[Sums]) -> str:
    """The text of stats.yaml: float64, population variance, changes between consecutive stored frames.

    Where there is one frame there are no changes: mean_delta is 0, std_delta and rms_delta are 1, so that normalising
    changes leaves them as they are.
    """
    shards = list(shards)
    table: dict[str, dict[str, float]] = {}
    for suffix in ("", "_delta"):
        for name in FIELDS:
            rows = [shard[suffix][name] for shard in shards]
            moments = _moments(rows) if rows[0][0] else {"mean": 0.0, "std": 1.0, "rms": 1.0}
            for key, value in moments.items():
                table.setdefault(key + suffix, {})[name] = value
    return yaml.safe_dump(table)
