"""The only door to the compiled module and to the Triton kernels."""

from __future__ import annotations

import functools
import importlib
import os
from types import ModuleType

import torch

BACKENDS = ("reference", "native", "triton")


class BackendError(RuntimeError):
    """The backend that was asked for cannot run here; the message lists every backend with the reason."""


@functools.cache
def native_module() -> ModuleType:
    """The compiled module `eqflow._C`."""
    try:
        return importlib.import_module("eqflow._C")
    except ImportError as error:
        raise BackendError(
            f"the compiled module eqflow._C is missing ({error}): this is the source tree, not an installation. "
            "Install it with `pip install .`, or `pip install --no-build-isolation -e .` to develop"
        ) from None


@functools.cache
def triton_kernels(operator: str) -> ModuleType:
    """The Triton half of an operator, `eqflow.kernels.<operator>`."""
    return importlib.import_module(f"eqflow.kernels.{operator}")


@functools.cache
def _native_problem(device_type: str) -> str | None:
    try:
        module = native_module()
    except BackendError as error:
        return str(error)
    if device_type == "cpu":
        return None
    if device_type != "cuda" or torch.version.hip:
        return "the native kernels run on the CPU and on NVIDIA GPUs"
    if not module.with_cuda:
        return "eqflow was built without CUDA: put nvcc on PATH and reinstall"
    if module.cuda_device_count() == 0:
        return "no NVIDIA GPU was found"
    return None


@functools.cache
def _triton_problem(device_type: str) -> str | None:
    try:
        importlib.import_module("triton")
    except ImportError:
        return "triton is not installed: pip install 'eqflow[triton]'"
    if device_type == "cpu" and os.environ.get("TRITON_INTERPRET") != "1":
        return "Triton needs a GPU (TRITON_INTERPRET=1, set before Python starts, runs it slowly on the CPU for tests)"
    if device_type == "cuda" and not torch.cuda.is_available():
        return "this PyTorch sees no GPU"
    if device_type not in ("cpu", "cuda"):
        return "the Triton kernels run on NVIDIA and AMD GPUs"
    return None


def problem(backend: str, device_type: str) -> str | None:
    """Why `backend` cannot run on tensors of `device_type`, or None if it can."""
    if backend == "reference":
        return None
    return _native_problem(device_type) if backend == "native" else _triton_problem(device_type)


def backends(device: str | torch.device = "cpu") -> dict[str, str | None]:
    """What runs on `device`: every backend with None, or with the reason why it does not.

    Example:
        >>> backends("cpu")["reference"] is None
        True
    """
    device_type = torch.device(device).type
    return {backend: problem(backend, device_type) for backend in BACKENDS}


def choose(backend: str, device: torch.device) -> str:
    """The backend to run: an explicit one must be available; "auto" takes native on the CPU, the fastest on a GPU.

    Raises:
        BackendError: `backend` is unknown or cannot run on `device`.
    """
    if backend == "auto" and device.type == "cpu":
        backend = "native"
    if backend == "auto":
        return next((b for b in ("native", "triton") if problem(b, device.type) is None), "reference")
    if backend not in BACKENDS:
        raise BackendError(f"expected backend 'auto', {', '.join(map(repr, BACKENDS))}, got {backend!r}")
    reason = problem(backend, device.type)
    if reason is None:
        return backend
    rows = [f"{name}: {why or 'available'}" for name, why in backends(device).items()]
    raise BackendError(f"backend {backend!r} cannot run on {device.type}. " + "; ".join(rows))


def check_device(device: str | torch.device) -> torch.device:
    """`device` as torch.device, if it exists here.

    Raises:
        BackendError: there is no such device.
    """
    try:
        device = torch.device(device)
    except RuntimeError:
        raise BackendError(f"expected a device such as 'cpu' or 'cuda', got {device!r}") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise BackendError(
            f"expected a GPU for device '{device}', but this PyTorch sees {torch.cuda.device_count()}: "
            "use device='cpu', or install a CUDA build of PyTorch on a machine with a GPU"
        )
    if device.type not in ("cpu", "cuda", "meta"):
        raise BackendError(f"expected a 'cpu' or 'cuda' device, got {str(device)!r}")
    return device
