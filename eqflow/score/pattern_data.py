"""Where the fields of a training come from: a tensor, or a simulator that makes every one anew.

A training draws one field after the other, and each is a function of the seed and of how many were drawn before: so
training goes on after a stop to the same bits. Some fields are kept apart, and training never sees them.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from eqflow.ops import philox
from eqflow.score.run import identity
from eqflow.systems.gray_scott import GrayScott, initial_state, is_dead

_ROWS = philox.STREAMS["minibatch"]
_DRAWS, _SPLIT = 2**33, 2**33 + 1  # steps of the stream
_MOST_ATTEMPTS = 20


class Fields(Protocol):
    """What a training needs of its data."""

    apart: Tensor  # [held out, channels, height, width], float32

    def draw(self, rows: range) -> Tensor:
        """Fields by their number in the training, [rows, channels, height, width]."""
        ...

    def reference(self, count: int) -> Tensor:
        """At most so many different fields that are not kept apart, for statistics."""
        ...

    def identity(self) -> Tensor:
        """What a checkpoint must agree on."""
        ...


class Stored:
    """Fields drawn with replacement from a tensor.

    Args:
        fields: [samples, channels, height, width], float32, finite; where they are decides where training runs.
        held_out: how many are kept apart.
        seed: of the split and of the draws.

    Raises:
        TypeError, ValueError: the fields cannot be learned from.

    Example:
        >>> stored = Stored(torch.randn(10, 2, 8, 8), held_out=2, seed=0)
        >>> stored.apart.shape, stored.draw(range(3)).shape
        (torch.Size([2, 2, 8, 8]), torch.Size([3, 2, 8, 8]))
    """

    def __init__(self, fields: Tensor, *, held_out: int, seed: int):
        if fields.dtype != torch.float32:
            raise TypeError(f"expected float32 fields, got {fields.dtype}: use fields.float()")
        if fields.ndim != 4 or not fields[:1].numel():
            raise ValueError(f"expected fields [samples, channels, height, width], got {list(fields.shape)}")
        if held_out < 1 or len(fields) < held_out + 1:
            raise ValueError(
                f"expected more fields than the {max(held_out, 1)} that are held out, got {len(fields)}: give more "
                "samples, or hold out fewer"
            )
        finite = fields.isfinite().flatten(1).all(1)
        if not finite.all():
            sample = int((~finite).nonzero()[0])
            raise ValueError(f"expected finite fields, but sample {sample} has NaN or infinite numbers: mend the input")
        samples = torch.arange(len(fields), device=fields.device)
        order = philox.words(samples, 1, seed=seed, step=_SPLIT, stream=_ROWS)[:, 0].argsort(stable=True)
        self.apart, self.fields = fields[order[:held_out]], fields
        self._training, self._seed = order[held_out:], seed

    def draw(self, rows: range) -> Tensor:
        numbers = torch.arange(rows.start, rows.stop, device=self.fields.device)
        words = philox.words(numbers, 1, seed=self._seed, step=_DRAWS, stream=_ROWS)[:, 0]
        return self.fields[self._training[philox.integers(words, len(self._training))]]

    def reference(self, count: int) -> Tensor:
        return self.fields[self._training[:count]]

    def identity(self) -> Tensor:
        return identity(self.fields, len(self.apart), self._seed)


class Simulated:
    """Final states of Gray-Scott, in the units 2 c - 1, each simulated for its row alone: no field is seen twice.

    Args:
        system: feed, kill and the rest.
        height, width: of the grid.
        steps: of the simulation.
        held_out: how many fields are kept apart.
        seed: of the starts, "discs".
        device: where to simulate, and to train.
        redraw_dead: whether a sample that ends homogeneous is started again.

    Raises:
        ValueError: the grid is too small for the starts, or samples die again and again.

    Example:
        >>> from eqflow.systems.gray_scott import preset
        >>> simulated = Simulated(preset("wave").parameters, 32, 32, steps=100, held_out=2, seed=0)
        >>> simulated.draw(range(3)).shape
        torch.Size([3, 2, 32, 32])
    """

    def __init__(
        self,
        system: GrayScott,
        height: int,
        width: int,
        *,
        steps: int = 10_000,
        held_out: int = 128,
        seed: int = 0,
        device: str | torch.device = "cpu",
        redraw_dead: bool = True,
    ):
        if held_out < 1:
            raise ValueError(f"expected held_out from 1 up, got {held_out}")
        self._system, self._size, self._steps, self._seed = system, (height, width), steps, seed
        self._device, self._redraw = torch.device(device), redraw_dead
        self.apart = self.fields(range(held_out))

    def fields(self, samples: range) -> Tensor:
        """The final states of samples by their number, [samples, 2, height, width]."""
        system, found = self._system, torch.empty(len(samples), 2, *self._size, device=self._device)
        rows = torch.arange(len(samples))
        for attempt in range(_MOST_ATTEMPTS):
            numbers = rows + samples.start
            start = initial_state("discs", numbers, *self._size, seed=self._seed, attempt=attempt, parameters=system)
            end = system.run(start.to(self._device), self._steps)
            found[rows.to(self._device)] = 2 * end - 1
            rows = rows[is_dead(end).cpu()]
            if not self._redraw or not len(rows):
                return found
        raise ValueError(
            f"{system} became homogeneous from each of {_MOST_ATTEMPTS} starts: these parameters die, take others or "
            "redraw_dead=False"
        )

    def draw(self, rows: range) -> Tensor:
        return self.fields(range(len(self.apart) + rows.start, len(self.apart) + rows.stop))

    def reference(self, count: int) -> Tensor:
        return self.draw(range(count))

    def identity(self) -> Tensor:
        return identity(self.apart, self._system, self._size, self._steps, self._seed, self._redraw)
