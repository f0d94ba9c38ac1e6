"""Standard normals of other libraries."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch


def normals(count: int) -> dict[str, Callable[[], object]]:
    """{peer: a function that makes `count` float32 standard normals}, of the libraries that are installed."""
    generator = np.random.default_rng(0)
    makers = {
        "torch.randn": lambda: torch.randn(count),
        "NumPy": lambda: generator.standard_normal(count, dtype=np.float32),
    }
    try:
        import jax
    except ImportError:
        return makers
    draw = jax.jit(lambda key: jax.random.normal(key, (count,)))
    key = jax.random.key(0)
    return makers | {"JAX": lambda: draw(key).block_until_ready()}
