"""Pattern-forming systems as makers of still pictures, each with the terms of its true equation.

All run on a periodic grid in plain PyTorch, with the stencils of `eqflow.ops.gray_scott` and explicit steps.
"""

from eqflow.systems.patterns.brusselator import Brusselator
from eqflow.systems.patterns.cahn_hilliard import CahnHilliard
from eqflow.systems.patterns.fitzhugh_nagumo import FitzHughNagumo
from eqflow.systems.patterns.noisy_gray_scott import NoisyGrayScott
from eqflow.systems.patterns.pattern import Pattern
from eqflow.systems.patterns.schnakenberg import Schnakenberg
from eqflow.systems.patterns.swift_hohenberg import SwiftHohenberg
from eqflow.systems.patterns.terms import Equations, Term, bilaplacian, evaluate, laplacian, value

__all__ = [
    "Brusselator",
    "CahnHilliard",
    "Equations",
    "FitzHughNagumo",
    "NoisyGrayScott",
    "Pattern",
    "Schnakenberg",
    "SwiftHohenberg",
    "Term",
    "bilaplacian",
    "evaluate",
    "laplacian",
    "value",
]
