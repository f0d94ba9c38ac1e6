"""Operators with hand-written kernels: one contract each, interchangeable backends, a readable reference."""

from eqflow.ops._backend import BackendError, backends
from eqflow.ops.gray_scott import gray_scott
from eqflow.ops.normal import normal

__all__ = ["BackendError", "backends", "gray_scott", "normal"]
