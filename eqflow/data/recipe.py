"""What decides the bytes of a dataset, and nothing else."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields

import torch
from torch import Tensor

from eqflow.ops.gray_scott import STENCILS, stability_limit
from eqflow.systems.gray_scott import GrayScott, check_initial, preset

FORMAT = 1  # raised when the same recipe would give other bytes
COEFFICIENTS = ("feed", "kill", "diffusion_u", "diffusion_v")

# The default size of a shard: a power of two samples, small to write and not long to lose.
_SHARD_BYTES = 2**28
_SHARD_UPDATES = 2**37


@dataclass(frozen=True)
class Recipe:
    """A Gray-Scott dataset: the same recipe gives the same bytes on every machine.

    Args:
        name: preset name or "custom"; begins the names of the files.
        samples: number of samples.
        height, width: size of the periodic grid.
        steps: time steps of a sample.
        every: None stores the final state only; k stores the states 0, k, 2k, ..., steps.
        feed, kill, diffusion_u, diffusion_v: one number, or the n numbers of a sweep; sample i uses entry i % n.
        dt, dx, stencil: see `eqflow.ops.gray_scott`.
        initial: kind of start, see `eqflow.systems.gray_scott.initial_state`.
        seed: key of the starts, in [0, 2^64).
        shard_samples: samples in a file; None: the largest power of two with at most 256 MiB and 2^37 cell updates.
        redraw_dead: replace samples that became homogeneous (see `eqflow.data.generate`).

    Raises:
        ValueError: a field is out of range, or dt is above the limit of stability.

    Example:
        >>> Recipe.from_preset("wave", samples=8, size=64, steps=100).shards
        1
    """

    name: str
    samples: int
    height: int
    width: int
    steps: int
    every: int | None
    feed: tuple[float, ...]
    kill: tuple[float, ...]
    diffusion_u: tuple[float, ...]
    diffusion_v: tuple[float, ...]
    dt: float = 1.0
    dx: float = 1.0
    stencil: str = "5-point"
    initial: str = "discs"
    seed: int = 0
    shard_samples: int | None = None
    redraw_dead: bool = True

    def __post_init__(self):
        for name in COEFFICIENTS:
            value = getattr(self, name)
            grid = tuple(map(float, value)) if isinstance(value, Sequence | Tensor) else (float(value),)
            object.__setattr__(self, name, grid)
        object.__setattr__(self, "dt", float(self.dt))
        object.__setattr__(self, "dx", float(self.dx))
        _check(self)
        if self.shard_samples is None:
            updates = self.height * self.width * max(1, self.steps)
            most = max(1, min(_SHARD_BYTES // self.sample_bytes, _SHARD_UPDATES // updates))
            object.__setattr__(self, "shard_samples", 2 ** int(math.log2(most)))

    @classmethod
    def from_preset(
        cls,
        name: str,
        *,
        samples: int,
        size: int | tuple[int, int] = 128,
        steps: int = 10_000,
        every: int | None = None,
        sweep: Mapping[str, Sequence[float]] | None = None,
        **others,
    ) -> Recipe:
        """The recipe of a preset.

        Args:
            name: a name in `eqflow.systems.gray_scott.PRESETS`.
            samples, steps, every: see `Recipe`.
            size: side of the grid, or (height, width).
            sweep: numbers to try for some of feed, kill, diffusion_u, diffusion_v; several are combined, each with
                each, the last one fastest.
            **others: further fields of `Recipe`, in place of the preset's.
        """
        parameters = asdict(preset(name).parameters)
        height, width = (size, size) if isinstance(size, int) else size
        sweep = dict(sweep or {})
        if unknown := sorted(set(sweep) - set(COEFFICIENTS)):
            raise ValueError(f"expected a sweep over {', '.join(COEFFICIENTS)}, got {', '.join(unknown)}")
        columns = zip(*itertools.product(*sweep.values()), strict=True)
        grids = dict(zip(sweep, columns, strict=True))
        chosen = {**parameters, **grids, **others}
        return cls(name=name, samples=samples, height=height, width=width, steps=steps, every=every, **chosen)

    @property
    def frames(self) -> int:
        """States stored of each sample."""
        return 1 if self.every is None else self.steps // self.every + 1

    @property
    def times(self) -> list[float]:
        """The time of each frame."""
        return [self.steps * self.dt] if self.every is None else [i * self.every * self.dt for i in range(self.frames)]

    @property
    def sample_bytes(self) -> int:
        """Bytes of the fields of one sample."""
        return self.frames * 2 * self.height * self.width * 4

    @property
    def shards(self) -> int:
        """Number of files."""
        return -(-self.samples // self.shard_samples)

    def shard(self, index: int) -> range:
        """The global sample indices in a file."""
        first = index * self.shard_samples
        return range(first, min(first + self.shard_samples, self.samples))

    def parameters(
        self,
        samples: Tensor,  # [n], int64
    ) -> Tensor:
        """F, k, D_u and D_v of some samples: float64 tensor [n, 4]."""
        grids = [torch.tensor(getattr(self, name), dtype=torch.float64) for name in COEFFICIENTS]
        return torch.stack([grid[samples % len(grid)] for grid in grids], -1)

    def system(self, sample: int) -> GrayScott:
        """The parameters of one sample."""
        grids = (getattr(self, name) for name in COEFFICIENTS)
        return GrayScott(*(grid[sample % len(grid)] for grid in grids), self.dt, self.dx, self.stencil)

    def to_json(self) -> dict:
        """The recipe as plain values, with the version of the format."""
        values = asdict(self)
        return {"format": FORMAT, **{k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}}

    @classmethod
    def from_json(cls, values: Mapping) -> Recipe:
        """The recipe that `to_json` wrote.

        Raises:
            ValueError: another version of the format, or a field is missing, unknown or out of range.
        """
        values = dict(values)
        if (found := values.pop("format", None)) != FORMAT:
            raise ValueError(f"expected a recipe of format {FORMAT}, got {found}: use the eqflow that wrote it")
        if difference := sorted({field.name for field in fields(cls)} ^ set(values)):
            raise ValueError(f"missing or unknown fields in the recipe: {', '.join(difference)}")
        return cls(**values)


def _check(recipe: Recipe) -> None:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,99}", recipe.name):
        raise ValueError(f"expected a name of letters, digits and - _ . + for the files, got {recipe.name!r}")
    whole = ("samples", "height", "width", "steps", "seed")
    optional = [name for name in ("every", "shard_samples") if getattr(recipe, name) is not None]
    for name in (*whole, *optional):
        value = getattr(recipe, name)
        if not isinstance(value, int) or isinstance(value, bool):
            raise ValueError(f"expected {name} as a whole number, got {value!r}")
    for name, least in (("samples", 1), ("height", 3), ("width", 3), ("steps", 0), ("seed", 0)):
        if getattr(recipe, name) < least:
            raise ValueError(f"expected {name} from {least} up, got {getattr(recipe, name)}")
    if recipe.seed >= 2**64 or recipe.samples >= 2**32:
        raise ValueError(f"expected seed below 2^64, samples below 2^32, got {recipe.seed} and {recipe.samples}")
    if recipe.every is not None and (recipe.every < 1 or recipe.steps < recipe.every or recipe.steps % recipe.every):
        raise ValueError(f"expected `every` to divide steps = {recipe.steps}, got {recipe.every}")
    if recipe.shard_samples is not None and recipe.shard_samples < 1:
        raise ValueError(f"expected shard_samples from 1 up, got {recipe.shard_samples}")
    if recipe.stencil not in STENCILS:
        raise ValueError(f"expected stencil {' or '.join(map(repr, STENCILS))}, got {recipe.stencil!r}")
    check_initial(recipe.initial, recipe.height, recipe.width)
    _check_numbers(recipe)


def _check_numbers(recipe: Recipe) -> None:
    grids = {name: getattr(recipe, name) for name in COEFFICIENTS}
    lengths = {name: len(grid) for name, grid in grids.items()}
    count = max(lengths.values())
    if not set(lengths.values()) <= {1, count} or not min(lengths.values()):
        raise ValueError(f"expected feed, kill, diffusion_u and diffusion_v of length 1 or {count}, got {lengths}")
    for name, grid in grids.items():
        if not all(0 <= value < math.inf for value in grid):
            raise ValueError(f"expected {name} finite and not negative, got {list(grid)}")
    if not (0 < recipe.dt < math.inf and 0 < recipe.dx < math.inf):
        raise ValueError(f"expected dt and dx above 0, got dt = {recipe.dt}, dx = {recipe.dx}")
    parameters = recipe.parameters(torch.arange(count)).T.clone()
    parameters[2:] /= recipe.dx**2
    limit = stability_limit(parameters, recipe.stencil)
    if (recipe.dt >= limit).any():
        worst = int(limit.argmin())
        values = ", ".join(f"{name} = {grid[worst % len(grid)]:g}" for name, grid in grids.items())
        raise ValueError(
            f"dt = {recipe.dt} is unstable for {values}: the limit is {float(limit[worst]):.4g} for the "
            f"{recipe.stencil} stencil. Take a smaller dt, a smaller diffusion or a larger dx"
        )
