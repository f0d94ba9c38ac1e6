"""The two kinds of flow under a flip of signs P: even, v(Px) = P v(x), and odd, v(Px) = -P v(x)."""

from __future__ import annotations

import torch
from torch import Tensor


def sign_of(parity: str | None) -> int:
    """+1 for "even", -1 for "odd"."""
    if parity not in ("even", "odd"):
        raise ValueError(f"expected parity 'even' or 'odd' beside signs, got {parity!r}")
    return 1 if parity == "even" else -1


def check_signs(signs: Tensor, dimension: int) -> Tensor:
    """The signs in float64 on the CPU; refuses all but +-1, and those that change nothing."""
    signs = torch.as_tensor(signs).double().cpu()
    if signs.shape != (dimension,) or (signs.abs() != 1).any() or (signs == 1).all():
        raise ValueError(
            f"expected {dimension} signs +1 or -1, not all +1, got {signs.tolist()}: leave signs out for no symmetry"
        )
    return signs
