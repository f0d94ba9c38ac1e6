"""Gray-Scott: parameters, presets, starts, closed forms and golden statistics."""

from eqflow.systems.gray_scott.model import (
    DEAD_STD,
    GrayScott,
    Rescaled,
    growth_matrix,
    is_dead,
    rescale,
    steady_states,
)
from eqflow.systems.gray_scott.presets import GOLDEN, PRESETS, Golden, Preset, preset
from eqflow.systems.gray_scott.starts import INITIAL_KINDS, check_initial, initial_state

__all__ = [
    "DEAD_STD",
    "GOLDEN",
    "INITIAL_KINDS",
    "PRESETS",
    "Golden",
    "GrayScott",
    "Preset",
    "Rescaled",
    "check_initial",
    "growth_matrix",
    "initial_state",
    "is_dead",
    "preset",
    "rescale",
    "steady_states",
]
