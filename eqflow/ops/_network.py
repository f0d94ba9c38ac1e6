"""What the operators of networks ask of their arguments, and how the compiled module is told of a network."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd import forward_ad

from eqflow.ops import _backend
from eqflow.ops.mlp import MLP

MOST_LAYERS, MOST_WIDTH, MOST_DIMENSION, MOST_INPUTS = 4, 256, 16, 256  # of the native kernels


def is_differentiated(tensor: Tensor) -> bool:
    """Whether somebody waits for a derivative with respect to `tensor`, backward or forward."""
    return tensor.requires_grad or forward_ad.unpack_dual(tensor).tangent is not None


def check_tensors(parameters: Tensor, network: MLP, **rows: Tensor) -> None:
    """Parameters [models, size], tensors [rows, dimension] or [models, rows, dimension], all of one type and place."""
    if not isinstance(network, MLP):
        raise TypeError(f"expected network as an eqflow.ops.MLP, got {type(network).__name__}")
    for name, value in {"parameters": parameters, **rows}.items():
        if not isinstance(value, Tensor):
            raise TypeError(f"expected {name} as a torch.Tensor, got {type(value).__name__}: use torch.as_tensor")
        if value.dtype not in (torch.float32, torch.float64) or value.dtype != parameters.dtype:
            raise TypeError(
                f"expected {name} and parameters both in float32 or both in float64, got {value.dtype} and "
                f"{parameters.dtype}: convert them"
            )
        if value.device != parameters.device:
            raise ValueError(f"expected {name} on {parameters.device} like the parameters, got {value.device}")
    if parameters.ndim != 2 or parameters.shape[1] != network.size:
        raise ValueError(f"expected parameters [models, {network.size}] for {network}, got {list(parameters.shape)}")
    for name, value in rows.items():
        shape, models, d = list(value.shape), len(parameters), network.dimension
        if shape[-1:] != [d] or not (len(shape) == 2 or (len(shape) == 3 and shape[0] == models)):
            raise ValueError(f"expected {name} [rows, {d}] or [{models}, rows, {d}], got {shape}")


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"expected {name} {', '.join(map(repr, choices))}, got {value!r}")


def check_counter(models: int, sites: int, seed: int, step: int, first_model: int) -> int:
    """The seed as the signed number that a schema carries."""
    for name, value, high in (
        ("seed", seed, 2**64 - 1),
        ("step", step, 2**56 - 1),
        ("first_model", first_model, 2**32 - models),
        ("rows * probes * 4 * ceil(dimension / 4)", sites, 2**34),
    ):
        if not 0 <= value <= high:
            raise ValueError(f"expected {name} in [0, {high}], got {value}")
    return seed - 2**64 if seed >= 2**63 else seed


def choose(backend: str, parameters: Tensor, network: MLP, *, triton: bool = False) -> str:
    """The backend to run: float64 is served by the reference, and nothing else falls back on the CPU.

    triton: whether the operator has Triton kernels.
    """
    if backend == "triton" and not triton:
        raise _backend.BackendError(
            "backend 'triton' serves mlp_divergence by tangents or probes alone: use backend='native' or 'auto'"
        )
    if parameters.dtype == torch.float64:
        if backend in ("native", "triton"):
            raise TypeError(f"expected float32 for backend {backend!r}, got float64: use backend='reference'")
        backend = "reference"
    if backend == "auto" and not parameters.is_cpu and _backend.problem("native", parameters.device.type):
        backend = "triton" if triton and not _backend.problem("triton", parameters.device.type) else "reference"
    backend = _backend.choose("native" if backend == "auto" else backend, parameters.device)
    if backend == "native" and (
        len(network.hidden) > MOST_LAYERS
        or max(network.hidden) > MOST_WIDTH
        or network.dimension > MOST_DIMENSION
        or network.inputs > MOST_INPUTS
    ):
        raise ValueError(
            f"the native kernels take up to {MOST_LAYERS} hidden layers of up to {MOST_WIDTH} units, dimension "
            f"{MOST_DIMENSION} and {MOST_INPUTS} encoded inputs, got {network}: use backend='reference'"
        )
    return backend


def native_shape(hidden: list[int], frequencies: int, output_bias: bool, dimension: int):
    """The network as the compiled module knows it."""
    return _backend.native_module().MlpShape(dimension, frequencies, list(hidden), output_bias)


def workspace(count: int, like: Tensor) -> Tensor:
    """Scratch memory of `count` numbers."""
    return torch.empty(count, dtype=torch.float32, device=like.device)
