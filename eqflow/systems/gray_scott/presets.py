"""The parameter sets that circulate, each with its source and what became of it, and the paper's golden statistics.

Measured at 128 x 128, dt 1, 5-point stencil, 10,000 steps, 32 samples from discs and 32 from squares.
"""

from __future__ import annotations

import difflib
from types import MappingProxyType
from typing import NamedTuple

from eqflow.systems.gray_scott.model import GrayScott


class Preset(NamedTuple):
    """Parameters, their source, and what they do: "moving", "static" (or slow), or "dead" from discs and squares."""

    parameters: GrayScott
    source: str
    character: str
    note: str = ""


_PAPER = "Zhang and Levin, Equilibrium flow: from snapshots to dynamics (arXiv 2509.17990)"
_RELEASED = "the code released with arXiv 2509.17990"
_WELL = "The Well, gray_scott_reaction_diffusion (PolymathicAI/the_well)"
_PMNEILA = "pmneila/jsexp (its dt is 0.8)"
_PEARSON = "Pearson's classes (Science 261, 1993) with the parameters of APEBench"
_ROUGIER = "rougier/numpy-tutorial"
_READY = "Ready (GollyGang/ready)"
_TAICHI = "the Taichi Gray-Scott demo"
_STARTS = "APEBench notes that it fails from its own starts"

# name, feed, kill, character, and diffusion or a note where they differ from the catalogue's own
_CATALOGUES = (
    ("", _PAPER, (0.16, 0.08), """
        life 0.006 0.045 moving | wave 0.018 0.049 moving | spirals 0.007 0.028 moving | maze 0.029 0.057 static"""),
    ("paper-", _RELEASED, (0.16, 0.08), """
        spots 0.035 0.065 static | dots 0.04 0.07 static | stripes 0.035 0.060 static | holes 0.039 0.058 static
        | bubbles 0.090 0.059 dead | worms 0.046 0.063 static | u-skate 0.062 0.061 static
        | fingerprints 0.040 0.064 static"""),
    ("paper-", _RELEASED, (0.10, 0.05), """
        chaos 0.026 0.051 moving | solitons 0.030 0.060 static | pulsating-solitons 0.025 0.060 moving"""),
    ("well-", _WELL, (0.08192, 0.04096), """
        gliders 0.014 0.054 moving | bubbles 0.098 0.057 dead | maze 0.029 0.057 static | worms 0.058 0.065 static
        | spirals 0.018 0.051 moving | spots 0.030 0.062 static"""),
    ("pmneila-", _PMNEILA, (0.2097, 0.105), """
        default 0.037 0.060 static | solitons 0.030 0.062 static | worms 0.078 0.061 static | mazes 0.029 0.057 static
        | holes 0.026 0.053 moving | chaos 0.026 0.051 moving | spots-and-loops 0.018 0.051 moving
        | waves 0.014 0.045 dead"""),
    ("pearson-", _PEARSON, (0.2097, 0.1049), """
        alpha 0.008 0.046 moving | beta 0.020 0.046 moving | gamma 0.024 0.056 moving | delta 0.028 0.056 static
        | epsilon 0.020 0.056 moving | zeta 0.024 0.060 moving | eta 0.036 0.063 static | theta 0.040 0.060 static
        | iota 0.050 0.0605 static | kappa 0.052 0.063 static | lambda 0.036 0.0655 static | mu 0.044 0.066 static"""),
    ("rougier-", _ROUGIER, (0.16, 0.08), """
        bacteria 0.035 0.065 static | coral 0.060 0.062 static | unstable 0.020 0.055 moving
        | worms 0.050 0.065 static | worms-2 0.054 0.063 static | zebrafish 0.035 0.060 static"""),
    ("rougier-", _ROUGIER, (0.14, 0.06), "bacteria-2 0.035 0.065 static"),
    ("rougier-", _ROUGIER, (0.19, 0.05), "fingerprint 0.060 0.062 static"),
    ("rougier-", _ROUGIER, (0.10, 0.10), "spirals 0.018 0.050 dead"),
    ("rougier-", _ROUGIER, (0.12, 0.08), "dense 0.020 0.050 dead"),
    ("rougier-", _ROUGIER, (0.10, 0.16), "fast 0.020 0.050 dead"),
    ("ready-", _READY, (0.082, 0.041), """
        u-skate-world 0.062 0.0609 static | spiral-waves 0.0118 0.0475 moving | soap-bubbles 0.094 0.059 dead"""),
    ("taichi-", _TAICHI, (0.16, 0.08), "demo 0.060 0.062 static"),
)  # fmt: skip

_NOTES = {
    "paper-dots": "lives from discs; half of the squares die",
    "pmneila-worms": "lives from fourier starts; dies from discs and squares",
    "spirals": "about one start of a hundred dies",
    **{f"pearson-{name}": _STARTS for name in ("zeta", "eta", "lambda", "mu")},
}


def _read_catalogues():
    for prefix, source, (diffusion_u, diffusion_v), rows in _CATALOGUES:
        for row in rows.split("|"):
            name, feed, kill, character = row.split()
            name = prefix + name
            system = GrayScott(float(feed), float(kill), diffusion_u, diffusion_v)
            yield name, Preset(system, source, character, _NOTES.get(name, ""))


PRESETS = MappingProxyType(dict(_read_catalogues()))


def preset(name: str) -> Preset:
    """The preset of that name.

    Raises:
        ValueError: there is none; the message lists the names that come close.

    Example:
        >>> preset("wave").parameters.feed
        0.018
    """
    if name in PRESETS:
        return PRESETS[name]
    endings = [key for key in PRESETS if key.split("-", 1)[-1] == name]
    close = endings or difflib.get_close_matches(name, PRESETS, n=5, cutoff=0.5)
    advice = f"did you mean {', '.join(dict.fromkeys(close))}? " if close else ""
    raise ValueError(
        f"there is no Gray-Scott preset {name!r}: {advice}The paper's are life, wave, spirals and maze; "
        f"list(eqflow.systems.gray_scott.PRESETS) names all {len(PRESETS)}"
    )


class Golden(NamedTuple):
    """Statistics of the living samples after 10,000 steps from discs at 128 x 128, of 512 samples.

    `spread_u`, `spread_v`: standard deviation between samples of the spatial means; the mean of n samples has the
    standard error spread / sqrt(n), and so has the table with n = 512.
    """

    mean_u: float
    spread_u: float
    mean_v: float
    spread_v: float
    std_u: float
    std_v: float
    alive: int
    samples: int = 512


GOLDEN = MappingProxyType(
    {
        "life": Golden(0.8195, 0.031, 0.0213, 0.0045, 0.199, 0.055, 512),
        "wave": Golden(0.5863, 0.034, 0.1109, 0.0111, 0.248, 0.109, 512),
        "spirals": Golden(0.3073, 0.060, 0.1393, 0.0249, 0.165, 0.082, 507),
        "maze": Golden(0.51281, 0.0009, 0.16428, 0.0003, 0.144, 0.097, 512),
    }
)
