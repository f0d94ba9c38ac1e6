"""One pass of a stochastic integrator: x' = base_scale base + A * x + B * f + c xi.

x is the state, f the output of a network or the score itself, * a convolution on the periodic grid and xi noise made on
the spot. With other constants (`Update`) the same pass is a step of Euler-Maruyama, either half of stochastic Heun, or
the exact Ornstein-Uhlenbeck step of

    dx = (K + eta) * s(x) dt + sqrt(2 eta) dW,      s = grad log p        (Zhang & Levin 2025, Eq. 10, 11)

which keeps p for every skew-symmetric K, that is K[o, i, u, v] = -K[i, o, -u, -v].
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import forward_ad

from eqflow.ops import _backend
from eqflow.ops.normal import reference as normal_reference
from eqflow.ops.philox import STREAMS


def convolve(
    kernel: Tensor,  # [channels, channels, 2r + 1, 2r + 1]
    field: Tensor,  # [batch, channels, height, width]
) -> Tensor:
    """The specification: the convolution of torch.nn.functional.conv2d on a periodic grid of any size."""
    radius = kernel.shape[-1] // 2
    rows, columns = (torch.arange(-radius, size + radius, device=field.device) % size for size in field.shape[2:])
    return F.conv2d(field[:, :, rows[:, None], columns], kernel)


def reference(
    state, output, state_kernel, output_kernel, noise_scale, seed, step, first_sample, stream, base, base_scale
) -> Tensor:
    """The specification: x' = base_scale base + A * x + B * f + c xi in float64, rounded once."""
    result = convolve(state_kernel.to(state.device).double(), state.double())
    if output is not None:
        result += convolve(output_kernel.to(state.device).double(), output.double())
    if base is not None:
        result += base_scale * base.double()
    if noise_scale:
        noise = normal_reference(len(state), state[0].numel(), seed, step, stream, first_sample, state.device)
        result += noise_scale * noise.view_as(state)
    return result.to(state.dtype)


torch.library.define(
    "eqflow::langevin_update",
    "(Tensor state, Tensor? output, Tensor state_kernel, Tensor? output_kernel, float noise_scale, int seed, int step, "
    "Tensor? step_in_memory, int first_sample, int stream, Tensor? base, float base_scale, str backend) -> Tensor",
    tags=[torch.Tag.pt2_compliant_tag],
)


@torch.library.impl("eqflow::langevin_update", "CompositeExplicitAutograd")
def _run(
    state,
    output,
    state_kernel,
    output_kernel,
    noise_scale,
    seed,
    step,
    step_in_memory,
    first_sample,
    stream,
    base,
    base_scale,
    backend,
):
    backend = _backend.choose(backend, state.device)
    seed &= 2**64 - 1  # the schema carries it as a signed number
    if not state.numel():
        return torch.empty_like(state, memory_format=torch.contiguous_format)
    if step_in_memory is not None and (backend == "reference" or state.is_cpu):
        step, step_in_memory = int(step_in_memory), None
    if backend == "reference":
        fields = _as_grid(state), _as_grid(output), state_kernel, output_kernel
        counter = seed, step, first_sample, stream
        return reference(*fields, noise_scale, *counter, _as_grid(base), base_scale).view(state.shape)
    if state.dtype != torch.float32:
        raise TypeError(
            f"expected a float32 state for backend {backend!r}, got {state.dtype}: use state.float() or "
            "backend='reference'"
        )
    result = torch.empty_like(state, memory_format=torch.contiguous_format)
    state, state_kernel = state.contiguous(), state_kernel.to(state).contiguous()
    if output is not None:
        output, output_kernel = output.contiguous(), output_kernel.to(state).contiguous()
    if base is not None:
        base = base.contiguous()
    constants = noise_scale, base_scale, seed, step, step_in_memory, stream, first_sample
    if backend == "native":
        fields = state, output, state_kernel, output_kernel, base, result
        _backend.native_module().langevin(*fields, *constants, torch.get_num_threads())
    else:
        fields = _as_grid(state), _as_grid(output), state_kernel, output_kernel, _as_grid(base), _as_grid(result)
        _backend.triton_kernels("langevin").langevin(*fields, *constants)
    return result


def _as_grid(field: Tensor | None) -> Tensor | None:
    return field if field is None or field.ndim == 4 else field[..., None, None]


@torch.library.register_fake("eqflow::langevin_update")
def _(state, *_):
    return torch.empty_like(state, memory_format=torch.contiguous_format)


def _check_field(name: str, field: Tensor, like: Tensor, dtypes: tuple[torch.dtype, ...]) -> None:
    if not isinstance(field, Tensor):
        raise TypeError(f"expected {name} as a torch.Tensor, got {type(field).__name__}: use torch.as_tensor({name})")
    if field.dtype not in dtypes:
        raise TypeError(f"expected {name} in {' or '.join(map(str, dtypes))}, got {field.dtype}: convert it")
    if field.shape != like.shape or field.device != like.device:
        raise ValueError(
            f"expected {name} like the state, {list(like.shape)} on {like.device}, got {list(field.shape)} on "
            f"{field.device}"
        )
    if field.requires_grad or forward_ad.unpack_dual(field).tangent is not None:
        raise NotImplementedError(
            f"langevin_update has no derivative: pass {name}.detach() (a network: under torch.no_grad()), or "
            "differentiate the reference"
        )


def _check_kernel(name: str, kernel: Tensor, channels: int | None = None) -> None:
    if not isinstance(kernel, Tensor) or not kernel.is_floating_point():
        raise TypeError(
            f"expected {name} as a floating-point torch.Tensor, got {getattr(kernel, 'dtype', type(kernel))}"
        )
    shape = list(kernel.shape)
    if len(shape) != 4 or shape[:2] != [channels or shape[1]] * 2 or shape[2] != shape[3] or shape[2] % 2 == 0:
        size = f"{channels}, {channels}" if channels else "channels, channels"
        raise ValueError(f"expected {name} [{size}, 2r + 1, 2r + 1], as many channels as the state, got {shape}")


def langevin_update(
    state: Tensor,  # [batch, channels, height, width] or [batch, dimension]
    output: Tensor | None,  # like the state
    state_kernel: Tensor,  # [channels, channels, 2r + 1, 2r + 1]
    output_kernel: Tensor | None,  # [channels, channels, 2r + 1, 2r + 1]
    noise_scale: float,
    *,
    seed: int,
    step: int | Tensor,
    first_sample: int = 0,
    stream: int = STREAMS["langevin"],
    base: Tensor | None = None,  # like the state
    base_scale: float = 0.0,
    backend: str = "auto",
) -> Tensor:
    """One pass x' = base_scale base + A * x + B * f + c xi, with noise made on the spot.

    xi is `ops.normal` of (seed, stream, step, sample, site), with site the flat index inside the sample. All native and
    Triton backends give the same bits, for any number of threads and any split of the batch: the sum takes the input
    channels of A, then of B, each over its taps row by row, and every addition is a fused multiply-add.

    Args:
        state: x, float32 (float64 with the reference). `[batch, dimension]` is a grid of one pixel.
        output: f, in the type of the state or bfloat16; None leaves out B * f.
        state_kernel, output_kernel: A and B, of one size, in the orientation of torch.nn.functional.conv2d, circular.
        noise_scale: c; 0 draws nothing and costs nothing.
        seed: key of the noise, in [0, 2^64).
        step: time step, in [0, 2^56); or an int64 scalar tensor, read from the GPU's memory by the native and Triton
            kernels, so that a captured CUDA graph can count it up.
        first_sample: global index of the first sample.
        stream: purpose of the numbers; see `eqflow.ops.philox.STREAMS`.
        base, base_scale: another state to add, for the second pass of stochastic Heun.
        backend: "auto", "reference", "native" or "triton".

    Returns:
        x', like the state, in new contiguous memory.

    Raises:
        TypeError, ValueError: an argument is wrong.
        BackendError: the backend is not available here.
        NotImplementedError: a derivative was asked for.

    Example:
        >>> turn = torch.tensor([[0.0, -1.0], [1.0, 0.0]])[:, :, None, None]
        >>> langevin_update(torch.tensor([[1.0, 2.0]]), None, turn, None, 0.0, seed=0, step=0)
        tensor([[-2.,  1.]])
    """
    _check_field("state", state, state, (torch.float32, torch.float64))
    if state.ndim not in (2, 4):
        raise ValueError(
            f"expected state [batch, channels, height, width] or [batch, dimension], got {list(state.shape)}"
        )
    _check_kernel("state_kernel", state_kernel, state.shape[1])
    if output is None:
        output_kernel = None
    else:
        _check_field("output", output, state, (state.dtype, torch.bfloat16))
        _check_kernel("output_kernel", output_kernel, state.shape[1])
        if output_kernel.shape != state_kernel.shape:
            raise ValueError(
                f"expected kernels of one size, got {list(state_kernel.shape)} and {list(output_kernel.shape)}: pad "
                "the smaller with zeros"
            )
    if base is not None:
        _check_field("base", base, state, (state.dtype,))
    elif base_scale:
        raise ValueError(f"expected a base to go with base_scale = {base_scale}, got None")
    if not (0 <= noise_scale < math.inf and math.isfinite(base_scale)):
        raise ValueError(f"expected noise_scale from 0 up and base_scale finite, got {noise_scale} and {base_scale}")
    in_memory = step if isinstance(step, Tensor) else None
    if in_memory is not None:
        if step.dtype != torch.int64 or step.ndim:
            raise TypeError(f"expected step as an int or an int64 scalar tensor, got {step.dtype} {list(step.shape)}")
        if in_memory.is_cpu:
            step, in_memory = int(in_memory), None
        elif in_memory.device == state.device:
            step = 0
        else:
            raise ValueError(f"expected step on {state.device} or the CPU, got {step.device}")
    for name, value, high in (
        ("seed", seed, 2**64 - 1),
        ("step", step, 2**56 - 1),
        ("stream", stream, 255),
        ("first_sample", first_sample, 2**32 - len(state)),
    ):
        if not 0 <= value <= high:
            raise ValueError(f"expected {name} in [0, {high}], got {value}")
    signed = seed - 2**64 if seed >= 2**63 else seed
    if state.is_cuda and state.dtype == torch.float64 and backend == "auto":
        backend = "reference"
    return torch.ops.eqflow.langevin_update.default(
        state, output, state_kernel, output_kernel, noise_scale, signed, step, in_memory, first_sample, stream,
        base, base_scale, backend,
    )  # fmt: skip


class Update(NamedTuple):
    """The constants of one pass of `langevin_update`, its arguments in order."""

    state_kernel: Tensor  # A, [channels, channels, 2r + 1, 2r + 1]
    output_kernel: Tensor  # B
    noise_scale: float  # c
    base_scale: float = 0.0
    error: float = 0.0  # operator norm of what a truncated series leaves out of exp(-h K)


def _identity_and_drift(kernel: Tensor, eta: float, dt: float) -> tuple[Tensor, Tensor]:
    """The identity as a kernel and Q = K + eta, in float64."""
    _check_kernel("kernel", kernel)
    if not (0 <= eta < math.inf and 0 < dt < math.inf):
        raise ValueError(f"expected eta from 0 up and dt above 0, got eta = {eta}, dt = {dt}")
    kernel = kernel.double()
    violation = (kernel + kernel.transpose(0, 1).flip(2, 3)).abs()
    if not violation.max() <= 1e-6 * kernel.abs().max():  # also NaN
        o, i, u, v = (int(n) for n in torch.unravel_index(violation.argmax(), kernel.shape))
        mirrored = kernel.shape[2] - 1 - u, kernel.shape[3] - 1 - v
        raise ValueError(
            f"expected a skew-symmetric kernel, K[o, i, u, v] = -K[i, o, -u, -v], but K[{o}, {i}, {u}, {v}] = "
            f"{kernel[o, i, u, v]:.6g} and K[{i}, {o}, {mirrored[0]}, {mirrored[1]}] = {kernel[i, o][mirrored]:.6g} "
            f"add up to {violation[o, i, u, v]:.3g}: take (K - its mirror image) / 2"
        )
    one = torch.zeros_like(kernel)
    one[:, :, kernel.shape[2] // 2, kernel.shape[3] // 2].fill_diagonal_(1)
    return one, kernel + eta * one


def _update(kernel: Tensor, state_kernel: Tensor, output_kernel: Tensor, *scales: float) -> Update:
    return Update(state_kernel.to(kernel.dtype), output_kernel.to(kernel.dtype), *scales)


def euler_maruyama(
    kernel: Tensor, eta: float, dt: float, state_scale: float = 0.0, output_scale: float = 1.0
) -> Update:
    """x + dt Q * (state_scale x + output_scale f) + sqrt(2 eta dt) xi with Q = K + eta."""
    one, drift = _identity_and_drift(kernel, eta, dt)
    scales = dt * state_scale, dt * output_scale
    return _update(kernel, one + scales[0] * drift, scales[1] * drift, math.sqrt(2 * eta * dt))


def heun(
    kernel: Tensor, eta: float, dt: float, state_scale: float = 0.0, output_scale: float = 1.0
) -> tuple[Update, Update]:
    """The two passes of stochastic Heun: y = x + dt a(x) + c xi, then x' = x/2 + y/2 + dt/2 a(y) + c/2 xi.

    The second takes state = y, output = f(y), base = x and the same counter, hence the same xi.
    """
    first = euler_maruyama(kernel, eta, dt, state_scale, output_scale)
    halves = (first.state_kernel / 2, first.output_kernel / 2, first.noise_scale / 2)
    return first, Update(*halves, base_scale=0.5)


def _product(left: Tensor, right: Tensor) -> Tensor:
    """The kernel of left * (right * x)."""
    padded = F.pad(right.transpose(0, 1), [left.shape[-1] - 1] * 4)
    return F.conv2d(padded, left.flip(2, 3)).transpose(0, 1)


def _norm_bound(kernel: Tensor, grid: int = 64) -> float:
    """An upper bound of the operator norm: the largest over a grid of wave vectors, times what may hide between."""
    largest = torch.linalg.matrix_norm(torch.fft.fft2(kernel, (grid, grid)).movedim((2, 3), (0, 1)), 2).max()
    return float(largest) / math.cos(math.pi * (kernel.shape[-1] // 2) / grid) ** 2


def ornstein_uhlenbeck(
    kernel: Tensor, eta: float, dt: float, alpha: float, prediction: str = "x0", *, order: int = 2
) -> Update:
    """The exact step for a denoiser D(x) = E[x_0 | x] that is held over the step.

    With h = dt / (1 - alpha) and E = exp(-h Q),
        x' = sqrt(alpha) D + E * (x - sqrt(alpha) D) + sqrt((1 - alpha) (1 - exp(-2 eta h))) xi

    Args:
        kernel: K. A 1x1 kernel gives the exact exponential; a larger one its series up to K^order, a kernel of radius
            order r whose `error` is at most exp(-eta h) (h |K|)^(order + 1) / (order + 1)!.
        eta, dt: strength of the reversible part, time step.
        alpha: x = sqrt(alpha) x_0 + sqrt(1 - alpha) noise.
        prediction: what the network gives: "x0", "epsilon" (noise), or "v" = sqrt(alpha) noise - sqrt(1 - alpha) x_0.
        order: of the series; see `kernel`.
    """
    if not 0 < alpha < 1:
        raise ValueError(f"expected alpha between 0 and 1, got {alpha}")
    foldings = {  # sqrt(alpha) D = a x + b f
        "x0": (0.0, math.sqrt(alpha)),
        "v": (alpha, -math.sqrt(alpha * (1 - alpha))),
        "epsilon": (1.0, -math.sqrt(1 - alpha)),
    }
    if prediction not in foldings:
        raise ValueError(f"expected prediction {', '.join(map(repr, foldings))}, got {prediction!r}")
    one, drift = _identity_and_drift(kernel, eta, dt)
    h, radius, error = dt / (1 - alpha), kernel.shape[-1] // 2, 0.0
    if radius == 0:
        decay = torch.linalg.matrix_exp(-h * drift[:, :, 0, 0])[:, :, None, None]
    else:
        if not 1 <= order <= 16:
            raise ValueError(f"expected order in [1, 16], got {order}")
        skew = kernel.double()
        one = F.pad(one, [radius * (order - 1)] * 4)
        decay, power = one, skew
        for n in range(1, order + 1):
            decay = decay + (-h) ** n / math.factorial(n) * F.pad(power, [radius * (order - n)] * 4)
            power = _product(skew, power)
        decay = math.exp(-eta * h) * decay
        error = math.exp(-eta * h) * (h * _norm_bound(skew)) ** (order + 1) / math.factorial(order + 1)
    a, b = foldings[prediction]
    noise = math.sqrt(-(1 - alpha) * math.expm1(-2 * eta * h))
    return _update(kernel, decay + a * (one - decay), b * (one - decay), noise, 0.0, error)


def langevin_step(
    state: Tensor,  # [batch, channels, height, width] or [batch, dimension]
    output: Tensor | None,  # like the state
    *,
    kernel: Tensor,  # [channels, channels, 2r + 1, 2r + 1], skew-symmetric
    eta: float,
    dt: float,
    seed: int,
    step: int | Tensor,
    first_sample: int = 0,
    state_scale: float = 0.0,
    output_scale: float = 1.0,
    backend: str = "auto",
) -> Tensor:
    """One Euler-Maruyama step of dx = (K + eta) * s dt + sqrt(2 eta) dW with s = state_scale x + output_scale f.

    The kernel is checked and folded at every call, which a kernel on a GPU pays with a wait; for many steps, make
    `euler_maruyama(...)` once and call `langevin_update`. The variance it leaves is too large by dt |Q|^2 L / (2 eta)
    where -L is the curvature of log p: prefer `heun` or `ornstein_uhlenbeck` where that is more than a few percent.

    Args:
        state, output, seed, step, first_sample, backend: see `langevin_update`.
        kernel: K, skew-symmetric: K[o, i, u, v] = -K[i, o, -u, -v].
        eta: strength of the reversible part and of the noise; 0 draws no noise.
        dt: time step.
        state_scale, output_scale: the score is affine in what a network predicts.

    Raises:
        TypeError, ValueError: an argument is wrong; a kernel that is not skew-symmetric, with its largest violation.
        BackendError: the backend is not available here.
        NotImplementedError: a derivative was asked for.

    Example:
        >>> turn = torch.tensor([[0.0, -1.0], [1.0, 0.0]])[:, :, None, None]
        >>> x = torch.randn(64, 2, 32, 32)
        >>> langevin_step(x, -x, kernel=turn, eta=0.1, dt=0.01, seed=0, step=0).shape  # keeps N(0, 1)
        torch.Size([64, 2, 32, 32])
    """
    if not (math.isfinite(state_scale) and math.isfinite(output_scale)):
        raise ValueError(f"expected finite scales, got state_scale = {state_scale}, output_scale = {output_scale}")
    update = euler_maruyama(kernel, eta, dt, state_scale, output_scale)
    counter = {"seed": seed, "step": step, "first_sample": first_sample}
    return langevin_update(state, output, *update[:3], **counter, backend=backend)
