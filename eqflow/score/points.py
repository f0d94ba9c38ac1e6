"""Snapshots as their own model: the exact score at any noise level, without training."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from eqflow.score.closed_form import KernelScore


@dataclass(frozen=True, eq=False)
class Points:
    """The exact score of the noised points, with the interface of a trained `Denoiser`.

    Its error falls as the number of points to the power -1/2, and its cost grows with that number: the right score for
    up to about 100,000 points in up to about 8 dimensions.

    Args:
        points: [points, dimension], or fields [points, channels, height, width].
        self_term: "include" or "exclude"; see `KernelScore`.

    Example:
        >>> Points(torch.tensor([[-1.0], [1.0]])).at(0.75)(torch.tensor([[2.0]]))
        tensor([[-4.5359]])
    """

    points: Tensor
    self_term: str = field(default="include", kw_only=True)

    def at(self, alpha: float) -> KernelScore:
        """The score of the points under noise with the squared signal coefficient alpha in (0, 1)."""
        return KernelScore(self.points, alpha, self_term=self.self_term)
