"""The same Gray-Scott problem in other libraries, each as fast as its own idiom allows on one core or one GPU.

A peer is a function (state) -> advance, where `advance(steps)` starts from `state`, a float32 tensor
[batch, 2, height, width], and returns the state after `steps`, in a type of the peer's own. It raises ImportError where
its library is missing.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from bench.workload import DIFFUSION_U, DIFFUSION_V, FEED, KILL

Advance = Callable[[int], object]


def _one_step(roll: Callable, u, v):
    """The update in natural form for any library with numpy's `roll`."""
    reaction = u * v * v
    around_u = roll(u, 1, -2) + roll(u, -1, -2) + roll(u, 1, -1) + roll(u, -1, -1)
    around_v = roll(v, 1, -2) + roll(v, -1, -2) + roll(v, 1, -1) + roll(v, -1, -1)
    return (
        u + DIFFUSION_U * (around_u - 4 * u) - reaction + FEED * (1 - u),
        v + DIFFUSION_V * (around_v - 4 * v) + reaction - (FEED + KILL) * v,
    )


def numpy_roll(state: Tensor) -> Advance:
    """NumPy, one sample after the other: the fields of one fit the cache."""
    start = state.numpy()

    def advance(steps: int) -> np.ndarray:
        result = np.empty_like(start)
        for sample, (u, v) in enumerate(start):
            for _ in range(steps):
                u, v = _one_step(np.roll, u, v)
            result[sample] = u, v
        return result

    return advance


def _torch_roll(step: Callable, state: Tensor) -> Advance:
    """On a CPU one sample after the other; on a GPU, which wants much work a launch, all at once."""

    @torch.no_grad()
    def advance(steps: int) -> Tensor:
        result = torch.empty_like(state)
        for part in state.split(len(state) if state.is_cuda else 1):
            u, v = part.unbind(1)
            for _ in range(steps):
                u, v = step(u, v)
            first = part.storage_offset() // state[0].numel()
            result[first : first + len(part)] = torch.stack([u, v], 1)
        return result

    return advance


def torch_eager(state: Tensor) -> Advance:
    """PyTorch, eager."""
    return _torch_roll(functools.partial(_one_step, torch.roll), state)


def torch_compile(state: Tensor) -> Advance:
    """torch.compile of one step."""
    return _torch_roll(torch.compile(functools.partial(_one_step, torch.roll), dynamic=False), state)


def jax_loop(state: Tensor) -> Advance:
    """JAX: lax.map over the samples of a fori_loop over the steps; on a GPU, all samples at once."""
    import jax
    import jax.numpy as jnp

    on_gpu = state.is_cuda
    start = jnp.asarray(state.cpu().numpy())

    def trajectory(fields, steps):
        step = functools.partial(_one_step, jnp.roll)
        return jnp.stack(
            jax.lax.fori_loop(0, steps, lambda _, uv: step(*uv), (fields[..., 0, :, :], fields[..., 1, :, :])), -3
        )

    @jax.jit
    def advance(fields, steps):
        return trajectory(fields, steps) if on_gpu else jax.lax.map(lambda sample: trajectory(sample, steps), fields)

    return lambda steps: advance(start, steps).block_until_ready()


@functools.cache
def _numba_run() -> Callable:
    import numba

    jit = numba.njit(fastmath=True, error_model="numpy", nogil=True)

    @jit
    def wrap(field):
        field[0, 1:-1] = field[-2, 1:-1]
        field[-1, 1:-1] = field[1, 1:-1]
        for i in range(1, field.shape[0] - 1):
            field[i, 0] = field[i, -2]
            field[i, -1] = field[i, 1]

    @jit
    def step(u, v, next_u, next_v, feed, kill, diffusion_u, diffusion_v):
        four, one = np.float32(4), np.float32(1)
        keep_u, keep_v = one - feed - four * diffusion_u, one - feed - kill - four * diffusion_v
        wrap(u)
        wrap(v)
        for i in range(1, u.shape[0] - 1):
            for j in range(1, u.shape[1] - 1):
                reaction = u[i, j] * v[i, j] * v[i, j]
                around_u = (u[i - 1, j] + u[i + 1, j]) + (u[i, j - 1] + u[i, j + 1])
                around_v = (v[i - 1, j] + v[i + 1, j]) + (v[i, j - 1] + v[i, j + 1])
                next_u[i, j] = keep_u * u[i, j] + diffusion_u * around_u + (feed - reaction)
                next_v[i, j] = keep_v * v[i, j] + diffusion_v * around_v + reaction

    @jit
    def run(state, result, steps, feed, kill, diffusion_u, diffusion_v):
        samples, _, height, width = state.shape
        shape = (height + 2, width + 2)
        u, v, other_u, other_v = (
            np.empty(shape, np.float32),
            np.empty(shape, np.float32),
            np.empty(shape, np.float32),
            np.empty(shape, np.float32),
        )
        for sample in range(samples):
            u[1:-1, 1:-1] = state[sample, 0]
            v[1:-1, 1:-1] = state[sample, 1]
            for _ in range(steps):
                step(u, v, other_u, other_v, feed, kill, diffusion_u, diffusion_v)
                u, v, other_u, other_v = other_u, other_v, u, v
            result[sample, 0] = u[1:-1, 1:-1]
            result[sample, 1] = v[1:-1, 1:-1]

    return run


def numba_halo(state: Tensor) -> Advance:
    """numba: a hand-written halo, fastmath, folded coefficients, one sample after the other.

    Faster than modular indexing (eightfold), `@stencil`, separate rows, unsigned indices and one array for both fields,
    which were all tried.
    """
    run, start = _numba_run(), state.numpy()
    parameters = [np.float32(number) for number in (FEED, KILL, DIFFUSION_U, DIFFUSION_V)]

    def advance(steps: int) -> np.ndarray:
        result = np.empty_like(start)
        run(start, result, steps, *parameters)
        return result

    return advance


GRAY_SCOTT = {
    "numba": numba_halo,
    "JAX": jax_loop,
    "torch.compile": torch_compile,
    "torch eager": torch_eager,
    "NumPy": numpy_roll,
}
GRAY_SCOTT_ON_GPU = {"torch eager": torch_eager, "torch.compile": torch_compile, "JAX": jax_loop}


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


def as_tensor(result: object) -> Tensor:
    """The result of any peer as a tensor."""
    return result if isinstance(result, Tensor) else torch.from_numpy(np.array(result))
