"""What lives in a world, from its frames: creatures found and followed, beside K = 0, a fresh scatter, and noise."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from eqflow.cli import _stages
from eqflow.cli._run_folder import DesignFolder

_LEAST = 0.5  # match of a creature
_LAG = 4  # frames over which velocities are taken
_CHUNK = 8  # frames at a time
_LATE = 0.2  # share of the frames that count as the end
_FRESH = 4  # canvases of the scatter to compare with
_FARTHEST = 64.0  # pixels


def measure(
    stored: Any, request: dict[str, Any], folder: DesignFolder, observer: Callable[[Any], None]
) -> tuple[dict[str, Any], tuple[Any, Any]]:
    """Everything that the report says of the creatures; the flights with K and without."""
    interval = request["dt"] * request["every"]
    flights = []
    for path, words in ((folder.world, "find creatures"), (folder.null, "find them without K")):
        frames = np.load(path, mmap_mode="r")
        flights.append(follow(stored, frames, interval, partial(_seen, observer, words)))
    save(folder.tracks, dict(zip(("rule", "null"), flights, strict=True)))
    world, null = flights
    report = {
        "creatures": {"start": _count(world, 0), "end": _count(world, -1)},
        "recognition": _recognition(stored, world),
        "rows": _rows(world, null),
        "curves": _curves(world, null, request["every"]),
    }
    return _plain(report), (world.tracks, null.tracks)


def brief(stored: Any, path: Path, interval: float) -> tuple[dict[str, Any], Any]:
    """What an atlas says of a world, and its tracks."""
    from eqflow.metrics import herd

    flights = follow(stored, np.load(path, mmap_mode="r"), interval, lambda at, all_: None)
    late = flights.tracks.frame >= (1 - _LATE) * flights.tracks.frames
    found = {
        "start": _count(flights, 0),
        "end": _count(flights, -1),
        "match": _late_match(flights, late),
        "speed": herd.speed(flights, _LAG),
        "turning": herd.turning(flights, _LAG),
        "along_body": herd.along_body(flights, _LAG),
        "polarisation": herd.polarisation(flights, _LAG).value,
    }
    return _plain(found), flights.tracks


def _seen(observer: Callable[[Any], None], words: str, at: int, all_: int) -> None:
    observer(_stages.Progress(words, at, all_, "frames"))


def follow(stored: Any, frames: Any, interval: float, seen: Callable[[int, int], None]) -> Any:
    """The flights in frames [frames, 3, height, width] of whole numbers."""
    import torch

    from eqflow.data import reel
    from eqflow.metrics import Sightings, follow_creatures, rotational_order

    parts = []
    for first in range(0, len(frames), _CHUNK):
        seen(first, len(frames))
        fields = torch.from_numpy(reel.fields(np.asarray(frames[first : first + _CHUNK])))
        found = _find(stored, fields, _LEAST)
        parts.append(found._replace(frame=found.frame + first))
    whole = Sightings(*(torch.cat(part) for part in zip(*parts, strict=True)))
    size = tuple(frames.shape[2:])
    return follow_creatures(
        whole,
        size,
        frames=len(frames),
        reach=min(_length(stored) / 2, 0.49 * min(size)),
        interval=interval,
        orders=[rotational_order(picture) for picture in stored.pictures],
    )


def _find(stored: Any, fields: Any, least: float) -> Any:
    import torch

    from eqflow.metrics import find_creatures

    options = {"background": torch.tensor(stored.scatter["background"]), "oversample": stored.scatter["oversample"]}
    return find_creatures(fields.float(), stored.pictures, least=least, **options)


def _length(stored: Any) -> float:
    """Pixels that the longest creature takes in a world."""
    seen = stored.pictures[:, -1].amax(0) > 0
    rows, columns = (seen.any(axis).nonzero()[:, 0] for axis in (1, 0))
    return float(max(rows[-1] - rows[0], columns[-1] - columns[0]) + 1) / stored.scatter["oversample"]


def _count(flights: Any, frame: int) -> int:
    return int((flights.tracks.frame == frame % flights.tracks.frames).sum())


def _late_match(flights: Any, late: Any) -> Any:
    import torch

    from eqflow.metrics import herd

    match = flights.match[late]
    return herd.ratio(match, torch.ones_like(match), flights.tracks.track[late])


def _recognition(stored: Any, flights: Any) -> dict[str, Any]:
    """Matches at the end, in canvases that no training saw, and the best that noise has to offer."""
    import torch

    from eqflow.metrics import herd

    fresh = _find(stored, stored.fields(range(_FRESH, 2 * _FRESH)), _LEAST).match
    canvas = (len(stored.channels), *stored.size)
    noise = 2 * torch.rand(1, *canvas, generator=torch.Generator().manual_seed(0)) - 1
    lucky = _find(stored, noise, -math.inf).match.sort(descending=True).values[: max(2, len(fresh) // _FRESH)]
    late = flights.tracks.frame >= (1 - _LATE) * flights.tracks.frames

    def mean(match: Any) -> Any:
        return herd.ratio(match, torch.ones_like(match), torch.arange(len(match)))

    return {"end": _late_match(flights, late), "scatter": mean(fresh), "noise": mean(lucky)}


def _rows(world: Any, null: Any) -> list[dict[str, Any]]:
    """The table: name, unit, with K, without, remark."""
    from eqflow.metrics import herd

    def both(name: str, unit: str, quantity: Callable[[Any], Any], note: str = "") -> dict[str, Any]:
        return {"name": name, "unit": unit, "rule": quantity(world), "null": quantity(null), "note": note}

    near = min(_near(world), min(world.size) / 2)
    shells = [herd.pairs(flights, _LAG, farthest=near, bins=1) for flights in (world, null)]
    shuffled = shells[0].approach_null.y[0], shells[0].approach_null.error[0]
    order = herd.polarisation(world, _LAG)
    chance = f"by chance {order.null.value:.2f} ± {order.null.error:.2f}: {_sigmas(order.value, order.null)}"
    rows = [
        both("speed", "px/time", lambda flights: herd.speed(flights, _LAG), f"over {_LAG} frames"),
        both("straightness", "", lambda flights: herd.persistence(flights, _LAG), "cosine with the velocity before"),
        both("motion along the body", "", lambda flights: herd.along_body(flights, _LAG), "1 firm, 0 none"),
        both("turning", "rad/time", lambda flights: herd.turning(flights, _LAG), "counterclockwise"),
        both("lifetime", "time", herd.lifetime, "of a track, by the ends that were seen"),
        both("polarisation", "", lambda flights: herd.polarisation(flights, _LAG).value, chance),
    ]
    for name, unit, part, remark in (
        ("pairs approach", "px/time", "approach", f"closer than {near:.0f} px, away > 0"),
        ("pairs align", "", "alignment", f"cosine of velocities, closer than {near:.0f} px"),
        ("pair correlation", "", "correlation", f"closer than {near:.0f} px, 1 without an order"),
    ):
        with_k, without = ((getattr(shell, part).y[0], getattr(shell, part).error[0]) for shell in shells)
        rows.append({"name": name, "unit": unit, "rule": with_k, "null": without, "note": remark})
    rows[-3]["note"] += f"; velocities shuffled {float(shuffled[0]):.3f} ± {float(shuffled[1]):.3f}"
    return rows


def _near(flights: Any) -> float:
    """Twice the typical distance of neighbours in a scatter of as many."""
    count = max(1.0, len(flights.tracks.frame) / flights.tracks.frames)
    return math.sqrt(flights.size[0] * flights.size[1] / count)


def _sigmas(found: Any, null: Any) -> str:
    error = math.hypot(found.error, null.error)
    return f"{(found.value - null.value) / error:+.1f} standard errors" if error > 0 else "no error known"


def _curves(world: Any, null: Any, every: int) -> dict[str, Any]:
    import torch

    from eqflow.metrics import herd

    def curve(x: Any, y: Any, error: Any = None) -> dict[str, Any]:
        known = torch.as_tensor(y).isfinite()
        parts = {"x": x, "y": y, **({} if error is None else {"error": error})}
        return {name: torch.as_tensor(part)[known].tolist() for name, part in parts.items()}

    def over_time(flights: Any, values: Any) -> dict[str, Any]:
        number = torch.bincount(flights.tracks.frame, minlength=flights.tracks.frames).double()
        total = torch.zeros_like(number).index_add_(0, flights.tracks.frame, values.double())
        steps = torch.arange(len(number)) * every
        return curve(steps, number) if values is flights.tracks.frame else curve(steps, total / number)

    named = (("rule", world), ("null", null))
    found: dict[str, Any] = {
        "match": {name: over_time(flights, flights.match) for name, flights in named},
        "count": {name: over_time(flights, flights.tracks.frame) for name, flights in named},
        "displacement": {},
    }
    for name, flights in named:
        lags = [lag for lag in (1, 2, 3, 5, 8, 12, 20, 32, 50, 80, 120) if lag < flights.tracks.frames]
        found["displacement"][name] = curve(*herd.displacement(flights, lags))
    farthest = min(_FARTHEST, min(world.size) / 2)
    pairs = {name: herd.pairs(flights, _LAG, farthest=farthest) for name, flights in named}
    for panel, part in (("pairs", "correlation"), ("approach", "approach"), ("alignment", "alignment")):
        found[panel] = {name: curve(*getattr(value, part)) for name, value in pairs.items()}
        if part != "correlation":
            found[panel]["shuffled"] = curve(*getattr(pairs["rule"], f"{part}_null"))
    return found


def _plain(value: Any) -> Any:
    """Numbers for JSON: None where there is none."""
    import torch

    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    value = value.item() if isinstance(value, torch.Tensor) else value
    return None if isinstance(value, float) and not math.isfinite(value) else value


def save(path: Path, flights: dict[str, Any]) -> None:
    """Where each creature was: columns by name, `rule.frame`, `rule.track`, `rule.row`, ..., `null.frame`, ..."""
    from eqflow.data.files import write_whole

    columns: dict[str, Any] = {}
    for name, found in flights.items():
        tracks = found.tracks
        columns |= {
            f"{name}.frame": tracks.frame, f"{name}.track": tracks.track, f"{name}.species": found.species,
            f"{name}.row": tracks.position[:, 0], f"{name}.column": tracks.position[:, 1],
            f"{name}.heading": found.heading, f"{name}.match": found.match,
            f"{name}.frames": np.int64(tracks.frames), f"{name}.interval": np.float64(tracks.interval),
            f"{name}.size": np.array(found.size),
        }  # fmt: skip
    content = io.BytesIO()
    np.savez_compressed(content, **{name: np.asarray(values) for name, values in columns.items()})
    write_whole(path, content.getbuffer())


def read(path: Path, name: str) -> Any:
    """The tracks of `rule` or `null`."""
    import torch

    from eqflow.metrics import Tracks

    with np.load(path) as kept:
        frame, track, row, column = (torch.from_numpy(kept[f"{name}.{part}"]) for part in _PLACES)
        options = {"frames": int(kept[f"{name}.frames"]), "interval": float(kept[f"{name}.interval"])}
        size = tuple(kept[f"{name}.size"].tolist())
    return Tracks.make(frame, track, torch.stack([row, column], 1), torch.zeros_like(frame), size=size, **options)


_PLACES = ("frame", "track", "row", "column")
