"""Operators with hand-written kernels: one contract each, interchangeable backends, a readable reference."""

from eqflow.ops._backend import BackendError, backends
from eqflow.ops.gray_scott import gray_scott
from eqflow.ops.kernel_score import KernelScores, kernel_score
from eqflow.ops.langevin import langevin_step, langevin_update
from eqflow.ops.normal import normal

__all__ = [
    "BackendError",
    "KernelScores",
    "backends",
    "gray_scott",
    "kernel_score",
    "langevin_step",
    "langevin_update",
    "normal",
]
