"""The grid of a field: the differences that its equation is made of."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from eqflow.ops.gray_scott import STENCILS, laplacian


@dataclass(frozen=True)
class Grid:
    """Square cells.

    Args:
        stencil: of the Laplacian, "5-point" or "9-point".
        spacing: of the cells, in units of length.
        periodic: whether each border is beside the one across. A part of a larger picture is not; then means are taken
            where all neighbours are in the picture, which takes an ensemble that is the same at every place.

    Raises:
        ValueError: an argument is wrong.

    Example:
        >>> import torch
        >>> Grid(spacing=0.5).laplacian(torch.eye(4))[0]
        tensor([-16.,   8.,   0.,   8.])
    """

    stencil: str = "5-point"
    spacing: float = 1.0
    periodic: bool = True

    def __post_init__(self) -> None:
        if self.stencil not in STENCILS:
            raise ValueError(f"expected a stencil among {', '.join(STENCILS)}, got {self.stencil!r}")
        if not 0 < self.spacing < math.inf:
            raise ValueError(f"expected a positive spacing, got {self.spacing}")

    def laplacian(self, field: Tensor) -> Tensor:
        """Of the last two axes."""
        return laplacian(field, self.stencil) / self.spacing**2

    @property
    def laplacian_centre(self) -> float:
        """The weight of the cell itself in its Laplacian."""
        edge, _, centre, _ = STENCILS[self.stencil]
        return -edge * centre / self.spacing**2

    def difference(self, field: Tensor, axis: int) -> Tensor:
        """The central difference."""
        return (field.roll(-1, axis) - field.roll(1, axis)) / (2 * self.spacing)

    def inside(self, field: Tensor, margin: int) -> Tensor:
        """The field without the cells at a border that has none across."""
        return field if self.periodic or not margin else field[..., margin:-margin, margin:-margin]
