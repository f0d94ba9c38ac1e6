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


def _update(around: Callable, u, v):
    """One step in natural form; `around` sums the four neighbours."""
    reaction = u * v * v
    return (
        u + DIFFUSION_U * (around(u) - 4 * u) - reaction + FEED * (1 - u),
        v + DIFFUSION_V * (around(v) - 4 * v) + reaction - (FEED + KILL) * v,
    )


def _one_step(roll: Callable, u, v):
    """One step for any library with numpy's `roll`."""
    return _update(lambda x: roll(x, 1, -2) + roll(x, -1, -2) + roll(x, 1, -1) + roll(x, -1, -1), u, v)


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


def _times(count: int, step: Callable) -> Callable:
    """`count` steps as one function of (u, v)."""

    def steps(u, v):
        for _ in range(count):
            u, v = step(u, v)
        return u, v

    return steps


def _torch(state: Tensor, step: Callable, several: Callable, count: int) -> Advance:
    """On a CPU one sample after the other; on a GPU, which wants much work a launch, all at once."""

    @torch.no_grad()
    def advance(steps: int) -> Tensor:
        parts = []
        for part in state.split(len(state) if state.is_cuda else 1):
            u, v = part.unbind(1)
            for _ in range(steps // count):
                u, v = several(u, v)
            for _ in range(steps % count):
                u, v = step(u, v)
            parts.append(torch.stack([u, v], 1))
        return torch.cat(parts)

    return advance


def torch_eager(state: Tensor) -> Advance:
    """PyTorch, eager."""
    step = functools.partial(_one_step, torch.roll)
    return _torch(state, step, step, 1)


def torch_compile(state: Tensor) -> Advance:
    """torch.compile of eight steps: 1.7 times as fast as of one."""
    step = functools.partial(_one_step, torch.roll)
    one, eight = (torch.compile(_times(count, step), dynamic=False) for count in (1, 8))
    return _torch(state, one, eight, 8)


def jax_loop(state: Tensor) -> Advance:
    """JAX: lax.map over the samples of a fori_loop of four steps each, on padded fields; on a GPU all at once.

    1.2 times as fast as jnp.roll and one step.
    """
    import jax
    import jax.numpy as jnp

    on_gpu = state.is_cuda
    start = jnp.asarray(state.cpu().numpy())

    def around(x):
        padded = jnp.pad(x, [(0, 0)] * (x.ndim - 2) + [(1, 1)] * 2, mode="wrap")
        vertical = padded[..., :-2, 1:-1] + padded[..., 2:, 1:-1]
        return vertical + padded[..., 1:-1, :-2] + padded[..., 1:-1, 2:]

    step = functools.partial(_update, around)

    def trajectory(fields, steps):
        fields = fields[..., 0, :, :], fields[..., 1, :, :]
        fields = jax.lax.fori_loop(0, steps // 4, lambda _, uv: _times(4, step)(*uv), fields)
        return jnp.stack(jax.lax.fori_loop(0, steps % 4, lambda _, uv: step(*uv), fields), -3)

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
        u, v = np.empty(shape, np.float32), np.empty(shape, np.float32)
        other_u, other_v = np.empty(shape, np.float32), np.empty(shape, np.float32)
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


def as_tensor(result: object) -> Tensor:
    """The result of any peer as a tensor."""
    return result if isinstance(result, Tensor) else torch.from_numpy(np.array(result))
