"""From the options of `eqflow generate` to a recipe: all that can be wrong with them is found here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eqflow.cli import _place, _words
from eqflow.cli._shell import choice, one_line, usage

SAMPLES = 64
PARAMETERS = ("feed", "kill", "diffusion_u", "diffusion_v")


def recipe(
    folder: Path,
    *,
    preset: str | None,
    samples: int | None,
    size: str | None,
    steps: int | None,
    every: int | None,
    sweep: Sequence[str] | None,
    initial: str | None,
    seed: int | None,
    shard_size: str | None,
    keep_dead: bool | None,
    **system: Any,
) -> Any:
    """The `eqflow.data.Recipe` that the options describe; without any, the one that the folder was begun with.

    Raises:
        Problem: they describe none.
    """
    given = (preset, samples, size, steps, every, sweep, initial, seed, shard_size, keep_dead, *system.values())
    if all(option is None for option in given) and (found := _place.stored(folder)):
        return found
    size, steps, seed, initial = size or "128", 10_000 if steps is None else steps, seed or 0, initial or "discs"
    height, width = _words.size(size)
    grid = _words.sweeps(sweep or ())
    if steps < 0:
        raise usage(f"expected --steps from 0 up, got {steps}")
    if every is not None and (every < 1 or steps < every or steps % every):
        hint = (
            f"{_nearest_divisor(steps, every)} does" if every > 0 and steps else "leave it out for one state a sample"
        )
        raise usage(f"expected --every to divide --steps {steps}, got {every}: {hint}")
    if samples is not None and not 1 <= samples < 2**32:
        raise usage(f"expected --samples from 1 up to 2^32 - 1, got {samples}")
    if not 0 <= seed < 2**64:
        raise usage(f"expected --seed in [0, 2^64), got {seed}")

    from eqflow.data import Recipe
    from eqflow.systems import gray_scott

    name, system = _system(preset, grid, system)
    keep_dead = bool(grid) if keep_dead is None else keep_dead
    if not keep_dead and steps >= 10_000 and name != "custom" and gray_scott.PRESETS[name].character == "dead":
        raise usage(
            f"expected a preset that lives, got {name!r}, which ends uniform from every start: add --keep-dead to see "
            "that, take fewer --steps, or see `eqflow presets`"
        )
    choice("--initial", initial, gray_scott.INITIAL_KINDS)
    points = max(len(system[axis]) for axis in PARAMETERS)
    samples = samples or (points if grid else SAMPLES)
    if points > samples:
        raise usage(
            f"expected --samples to cover the {points} points of the sweep, got {samples}: take {points} or more"
        )
    sample_bytes = 2 * height * width * 4 * (steps // every + 1 if every else 1)
    try:
        return Recipe(
            name=name,
            samples=samples,
            height=height,
            width=width,
            steps=steps,
            every=every,
            initial=initial,
            seed=seed,
            shard_samples=_words.shard_samples(shard_size, sample_bytes),
            redraw_dead=not keep_dead,
            **system,
        )
    except (ValueError, TypeError) as error:
        raise usage(one_line(error)) from None


def _system(
    preset: str | None, grid: dict[str, tuple[float, ...]], given: dict[str, Any]
) -> tuple[str, dict[str, Any]]:
    """Name and physics: the preset's, changed by the options, spread over the grid of the sweeps."""
    from eqflow.ops.gray_scott import STENCILS
    from eqflow.systems import gray_scott

    given = {name: value for name, value in given.items() if value is not None}
    for name, value in given.items():
        option = "--" + name.replace("_", "-")
        if name in grid:
            raise usage(f"expected {option} or a --sweep of it, got both: drop one")
        if name == "stencil":
            choice(option, value, STENCILS)
        elif name in ("dt", "dx"):
            _words.number(option, value, above=0)
        else:
            _words.number(option, value, least=0)
    if preset is not None:
        try:
            base = gray_scott.preset(preset).parameters
        except ValueError:
            known = ", ".join(list(gray_scott.PRESETS)[:4])
            near = _close(preset, gray_scott.PRESETS)
            raise usage(
                f"expected a preset such as {known}, got {preset!r}: {near}`eqflow presets` lists all"
            ) from None
    else:
        missing = [f"--{name}" for name in ("feed", "kill") if name not in given and name not in grid]
        if len(missing) == 2 and not given and not grid:
            raise usage(
                "expected a preset such as wave, or --feed and --kill, got neither: `eqflow presets` lists presets"
            )
        if missing:
            raise usage(f"expected a preset, or --feed and --kill, got no {' and no '.join(missing)}")
        base = gray_scott.GrayScott(given.get("feed", 0.0), given.get("kill", 0.0))
    values = {name: given.get(name, getattr(base, name)) for name in (*PARAMETERS, "dt", "dx", "stencil")}
    changed = not preset or grid or any(values[name] != getattr(base, name) for name in values)
    for name in PARAMETERS:
        values[name] = grid.get(name, (float(values[name]),))
    return ("custom" if changed else preset), values


def _nearest_divisor(steps: int, every: int) -> int:
    divisors = {d for k in range(1, int(steps**0.5) + 1) if steps % k == 0 for d in (k, steps // k)}
    return min(divisors, key=lambda divisor: abs(divisor - every))


def _close(name: str, known: Any) -> str:
    import difflib

    endings = [key for key in known if key.split("-", 1)[-1] == name]
    near = list(dict.fromkeys(endings + difflib.get_close_matches(name, known, 3, 0.5)))[:4]
    return f"did you mean {' or '.join(near)}? " if near else ""
