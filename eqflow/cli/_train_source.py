"""The fields that a score is learned from, in units of about one: simulated as they are needed, or read."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

from eqflow.cli import _words
from eqflow.cli._shell import Problem, in_options, one_line, usage

HELD_OUT = 128
STEPS = 10_000


class Source(NamedTuple):
    """What there is to learn from."""

    name: str
    names: tuple[str, ...]  # of the channels
    size: tuple[int, int]
    about: dict[str, Any]  # plain values that decide the fields
    system: dict[str, Any] | None  # parameters and steps of the simulation, where they are known
    offset: list[float]  # data = offset + factor * field, a channel each
    factor: list[float]
    values: Any  # Tensor [samples, channels, height, width] in the units of the training, or None: made as needed
    notes: tuple[str, ...] = ()
    pictures: Any = None  # Tensor [species, channels + 1, side, side], where these are scattered

    def fields(self, held_out: int, seed: int, where: str) -> Any:
        """What `train_pattern` takes."""
        from eqflow.score import Scattered, Simulated, Stored
        from eqflow.systems.gray_scott import GrayScott

        if self.values is not None:
            return Stored(self.values.to(where), held_out=held_out, seed=seed)
        if self.pictures is not None:
            options = {"held_out": held_out, "seed": seed, "device": where, **self.about["scatter"]}
            return Scattered(self.pictures, self.size, **options)
        system = GrayScott(**self.system["parameters"])
        return Simulated(system, *self.size, steps=self.system["steps"], held_out=held_out, seed=seed, device=where)


def default_folder(data: Path | None, system: str | None) -> Path:
    """NAME-score, here."""
    name = system.rpartition(":")[2] if system else data.resolve().stem if data else "pattern"
    return Path(f"{name}-score")


def load(data: Path | None, given: dict[str, Any]) -> Source:
    """The data, with everything that can be wrong about them."""
    return _read(data, given["samples"]) if data is not None else _simulated(given)


def preset(word: str, option: str) -> Any:
    """The parameters of gray-scott:PRESET."""
    from eqflow.cli._request import _close
    from eqflow.systems import gray_scott

    kind, _, name = word.partition(":")
    if kind != "gray-scott" or name not in gray_scott.PRESETS:
        near = _close(name or kind, gray_scott.PRESETS)
        raise usage(
            f"expected {option} gray-scott:PRESET with a preset such as wave, got {word!r}: {near}`eqflow presets` "
            "lists all"
        )
    return gray_scott.preset(name).parameters


def _simulated(given: dict[str, Any]) -> Source:
    from eqflow.systems.gray_scott import check_initial

    parameters = preset(given["system"], "--system")
    height, width = _words.size(given["size"] or "128")
    try:
        check_initial("discs", height, width)
    except ValueError as error:
        raise usage(f"--size: {one_line(error)}") from None
    name = given["system"].partition(":")[2]
    system = {"preset": name, "parameters": dataclasses.asdict(parameters), "steps": given["simulated"] or STEPS}
    about = {"system": system, "size": [height, width]}
    return Source(name, ("u", "v"), (height, width), about, system, [0.5, 0.5], [0.5, 0.5], None)


def _read(path: Path, samples: int | None) -> Source:
    from eqflow.data import DatasetError, read_pictures
    from eqflow.data.pictures import PicturesError
    from eqflow.dynamics.fingerprint import describe

    try:
        stills = read_pictures([path])
    except (PicturesError, DatasetError) as error:
        raise Problem(in_options(error)) from None
    values = stills.values[:samples]
    system = _system(path) if path.is_dir() else None
    concentrations = system is not None or (stills.names == ("u", "v") and values.min() >= 0 and values.max() <= 1)
    if concentrations:
        offset, factor = [0.5] * values.shape[1], [0.5] * values.shape[1]
    else:
        offset = values.mean((0, 2, 3), dtype=values.dtype).tolist()
        factor = (2 * values.std((0, 2, 3))).tolist()
    if min(factor) <= 0:
        name = stills.names[factor.index(min(factor))]
        raise Problem(f"expected fields that vary, but channel {name} of {path} is constant: leave it out")
    middle, scale = (values.new_tensor(part).view(-1, 1, 1) for part in (offset, factor))
    fields = (values - middle) / scale
    about = {"fields": describe(fields)}
    size = (values.shape[2], values.shape[3])
    return Source(path.resolve().stem, stills.names, size, about, system, offset, factor, fields, stills.notes)


def _system(path: Path) -> dict[str, Any] | None:
    """How a dataset was made, where one set of parameters made all of it."""
    from eqflow.cli import _place
    from eqflow.cli._captions import points

    recipe = _place.stored(path)
    if recipe is None or points(recipe) > 1:
        return None
    return {"preset": recipe.name, "parameters": dataclasses.asdict(recipe.system(0)), "steps": recipe.steps}
