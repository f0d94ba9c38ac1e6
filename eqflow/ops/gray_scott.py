"""Gray-Scott on a periodic grid, many steps in one call.

u_t = D_u Lap u - u v^2 + F (1 - u)
v_t = D_v Lap v + u v^2 - (F + k) v        (Pearson, Science 261, 1993)
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad

from eqflow.ops import _backend


class Stencil(NamedTuple):
    """A Laplacian: weights of the edge and corner neighbours, the centre's share, and its largest |eigenvalue|."""

    edge: float
    corner: float
    centre: float  # minus the centre weight over the edge weight
    stiffness: float


STENCILS = {
    "5-point": Stencil(1.0, 0.0, 4.0, 8.0),
    "9-point": Stencil(4 / 6, 1 / 6, 5.0, 16 / 3),  # isotropic to fourth order (Patra & Karttunen 2006)
}


def laplacian(
    field: Tensor,  # [..., height, width]
    stencil: str = "5-point",
) -> Tensor:
    """The specification: the Laplacian on a periodic grid of unit spacing."""
    edge, corner, centre, _ = STENCILS[stencil]
    vertical = field.roll(1, -2) + field.roll(-1, -2)
    edges = vertical + field.roll(1, -1) + field.roll(-1, -1)
    inner = edge * (edges - centre * field)
    return inner + corner * (vertical.roll(1, -1) + vertical.roll(-1, -1)) if corner else inner


def reference(state: Tensor, steps: int, every: int, parameters: Tensor, dt: float, stencil: str) -> Tensor:
    """The specification: explicit Euler, both fields from the same old state; every k-th state is kept."""
    feed, kill, diffusion_u, diffusion_v = parameters.to(state.dtype)[..., None, None].unbind(0)
    u, v = state.unbind(1)
    frames = []
    for step in range(1, steps + 1):
        reaction = u * v * v
        u, v = (
            u + dt * (diffusion_u * laplacian(u, stencil) - reaction + feed * (1 - u)),
            v + dt * (diffusion_v * laplacian(v, stencil) + reaction - (feed + kill) * v),
        )
        if step % every == 0:
            frames.append(torch.stack([u, v], 1))
    return torch.stack(frames, 1)


def _dither(exact: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """The numbers of `dtype` around `exact` and the eight-step mask of the upper one, by error diffusion.

    One rounded coefficient would act like a feed wrong by 1e-6; the mean of eight steps is right to 1/16 of a unit in
    the last place.
    """
    nearest = exact.to(dtype)
    low = torch.where(nearest.double() > exact, torch.nextafter(nearest, nearest - 1), nearest)
    high = torch.nextafter(low, low + 1)
    share = (exact - low.double()) / (high.double() - low.double())
    # Error diffusion has taken the upper number floor(n share + 1/2) times in n steps.
    taken = (share[..., None] * torch.arange(9, dtype=torch.float64) + 0.5).floor()
    return low, high, (taken.diff() * 2.0 ** torch.arange(8)).sum(-1)


def coefficients(
    parameters: Tensor,  # [4, batch] float64: feed, kill, diffusion_u, diffusion_v in units of dx = 1
    dt: float,
    stencil: str,
    dtype: torch.dtype,
) -> Tensor:
    """What the kernels need of each sample, [batch, 8]: see GrayScottCoefficients in csrc/kernels.h."""
    edge, _, centre, _ = STENCILS[stencil]
    feed, kill, diffusion_u, diffusion_v = parameters
    weight_u, weight_v = (dt * diffusion * edge for diffusion in (diffusion_u, diffusion_v))
    weight_u, weight_v = weight_u.to(dtype), weight_v.to(dtype)
    # With the rounded weights in the centre coefficient, diffusion conserves mass.
    u_centre = 1 - dt * feed - centre * weight_u.double()
    v_centre = 1 - dt * (feed + kill) - centre * weight_v.double()
    low, high, mask = _dither(torch.stack([u_centre, v_centre]), dtype)
    rows = (weight_u, weight_v, low[0], high[0], low[1], high[1], mask[0], mask[1])
    return torch.stack([row.to(dtype) for row in rows], -1)


def _check_finite(state: Tensor, frames: Tensor) -> None:
    """Non-finite numbers stay, so the last frame tells; asking would break the capture of a CUDA graph."""
    if state.is_cuda and torch.cuda.is_current_stream_capturing():
        return
    bad = ~frames[:, -1].isfinite().flatten(1).all(1)
    if not bad.any():
        return
    sample = int(bad.nonzero()[0])
    if not state[sample].isfinite().all():
        raise ValueError(f"expected a finite state, but sample {sample} has NaN or infinite values: mend the input")
    raise FloatingPointError(
        f"sample {sample} grew beyond all bounds ({int(bad.sum())} of {len(bad)} samples did): start with u in [0, 1] "
        "and v in [0, 1], or take a smaller dt"
    )


torch.library.define(
    "eqflow::gray_scott",
    "(Tensor state, SymInt steps, SymInt every, Tensor parameters, float dt, str stencil, str backend) -> Tensor",
    tags=[torch.Tag.pt2_compliant_tag],
)


def _run(state, steps, every, parameters, dt, stencil, backend):
    backend = _backend.choose(backend, state.device)
    state = state.contiguous()
    batch, _, height, width = state.shape
    frames = state.new_empty((batch, steps // every, 2, height, width))
    if backend == "reference":
        frames.copy_(reference(state, steps, every, parameters.to(state.device), dt, stencil))
    elif state.numel():
        rows = coefficients(parameters, dt, stencil, state.dtype).to(state.device)
        arguments = (every, stencil == "9-point", math.sqrt(dt))
        if backend == "native":
            native = _backend.native_module()
            workspace = state.new_empty(native.gray_scott_workspace(frames, *arguments))
            native.gray_scott(state, rows, frames, workspace, *arguments, torch.get_num_threads())
        else:
            _backend.triton_kernels("gray_scott").gray_scott(state, rows, frames, *arguments)
    if state.numel():
        _check_finite(state, frames)
    return frames


for _device in ("CPU", "CUDA"):
    torch.library.impl("eqflow::gray_scott", _device, _run)


@torch.library.register_fake("eqflow::gray_scott")
def _(state, steps, every, parameters, dt, stencil, backend):
    batch, _, height, width = state.shape
    return state.new_empty((batch, steps // every, 2, height, width))


def _per_sample(name: str, value: float | Tensor, batch: int) -> Tensor:
    value = torch.as_tensor(value, dtype=torch.float64, device="cpu")
    if value.ndim > 1 or (value.ndim == 1 and len(value) != batch):
        raise ValueError(f"expected {name} as a number or a tensor [{batch}], got shape {list(value.shape)}")
    return value.expand(batch)


def stability_limit(parameters: Tensor, stencil: str = "5-point") -> Tensor:
    """The largest stable dt of each sample: 2 / (stiffness D + loss), from linear stability at u = 1, v = 0.

    Args:
        parameters: [4, batch]: feed, kill, diffusion_u, diffusion_v in units of dx = 1.
        stencil: "5-point" or "9-point".
    """
    feed, kill, diffusion_u, diffusion_v = parameters
    stiffness = STENCILS[stencil].stiffness
    return 2 / torch.maximum(stiffness * diffusion_u + feed, stiffness * diffusion_v + feed + kill).clamp_min(1e-300)


def _check(state: Tensor, steps: int, every: int | None, dt: float, dx: float, stencil: str) -> None:
    if not isinstance(state, Tensor):
        raise TypeError(f"expected state as a torch.Tensor, got {type(state).__name__}: use torch.as_tensor(state)")
    if state.ndim != 4 or state.shape[1] != 2 or min(state.shape[2:]) < 3:
        raise ValueError(
            f"expected state [batch, 2, height, width] with height and width from 3 up, got {list(state.shape)}"
        )
    if state.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"expected a float32 or float64 state, got {state.dtype}: use state.float()")
    if steps < 0:
        raise ValueError(f"expected steps from 0 up, got {steps}")
    if every is not None and (every < 1 or steps < every or steps % every):
        raise ValueError(f"expected `every` to divide steps = {steps} (at least one frame), got {every}")
    if stencil not in STENCILS:
        raise ValueError(f"expected stencil {' or '.join(map(repr, STENCILS))}, got {stencil!r}")
    if not (0 < dt < math.inf and 0 < dx < math.inf):
        raise ValueError(f"expected dt and dx above 0, got dt = {dt}, dx = {dx}")
    if state.requires_grad or forward_ad.unpack_dual(state).tangent is not None:
        raise NotImplementedError("gray_scott has no derivative: pass state.detach(), or differentiate the reference")


def gray_scott(
    state: Tensor,  # [batch, 2, height, width]: u and v
    steps: int,
    *,
    feed: float | Tensor,  # a number or [batch]
    kill: float | Tensor,  # a number or [batch]
    diffusion_u: float | Tensor = 0.16,
    diffusion_v: float | Tensor = 0.08,
    dt: float = 1.0,
    dx: float = 1.0,
    stencil: str = "5-point",
    every: int | None = None,
    backend: str = "auto",
) -> Tensor:
    """Advance Gray-Scott by explicit Euler steps on a periodic grid.

        u' = u + dt (D_u Lap u - u v^2 + F (1 - u))
        v' = v + dt (D_v Lap v + u v^2 - (F + k) v)

    The kernels carry 1 - u and v in the precision of the state, and give the same bits on every processor, for any
    number of threads and any split of the batch. Two calls do not equal one to the bit (u = 1 - w drops low bits of a
    small w), so take all frames of a trajectory from one call.

    Args:
        state: [batch, 2, height, width], float32, or float64 on the CPU; any height and width from 3 up.
        steps: number of time steps.
        feed, kill: F and k per unit time.
        diffusion_u, diffusion_v: D_u and D_v in units of length^2 per time.
        dt, dx: time step and grid spacing.
        stencil: "5-point", or "9-point", the isotropic one (edges 4/6, corners 1/6).
        every: record each `every`-th state; it must divide `steps`.
        backend: "auto", "reference", "native" or "triton".

    Returns:
        The last state, [batch, 2, height, width]; with `every`, all states recorded, [batch, frames, 2, height, width].

    Raises:
        TypeError, ValueError: an argument is wrong, or dt is above the limit of stability.
        FloatingPointError: a sample grew beyond all bounds.
        BackendError: the backend is not available here.
        NotImplementedError: a derivative was asked for.

    Example:
        >>> state = torch.stack([torch.ones(1, 32, 32), torch.zeros(1, 32, 32)], 1)
        >>> state[:, 0, 8:16, 8:16], state[:, 1, 8:16, 8:16] = 0.5, 0.25
        >>> gray_scott(state, 100, feed=0.018, kill=0.049).shape
        torch.Size([1, 2, 32, 32])
    """
    _check(state, steps, every, dt, dx, stencil)
    batch = len(state)
    named = {"feed": feed, "kill": kill, "diffusion_u": diffusion_u, "diffusion_v": diffusion_v}
    parameters = torch.stack([_per_sample(name, value, batch) for name, value in named.items()])
    if not (parameters.isfinite().all() and (parameters >= 0).all()):
        raise ValueError("expected feed, kill, diffusion_u and diffusion_v to be finite and not negative")
    parameters[2:] /= dx * dx
    limit = stability_limit(parameters, stencil)
    if (dt >= limit).any():
        sample = int((dt / limit).argmax())
        raise ValueError(
            f"dt = {dt} is unstable for sample {sample}: the limit is {float(limit[sample]):.4g} for the {stencil} "
            "stencil. Take a smaller dt, a smaller diffusion or a larger dx"
        )
    if state.is_cuda and state.dtype == torch.float64 and backend == "auto":
        backend = "reference"
    if steps == 0:
        return state.clone()
    frames = torch.ops.eqflow.gray_scott.default(state, steps, every or steps, parameters, dt, stencil, backend)
    return frames if every else frames.squeeze(1)
