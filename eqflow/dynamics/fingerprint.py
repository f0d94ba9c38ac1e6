"""What decides the bits of a rollout, as plain values that a checkpoint can hold and compare."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor


def _digest(tensor: Tensor) -> str:
    raw = tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy()
    return hashlib.sha256(raw.data).hexdigest()[:16]


def describe(value: Any) -> Any:
    """`value` as plain values: tensors and weights by their SHA-256, objects by what they hold, functions by name.

    Example:
        >>> describe({"eta": 0.1, "kernel": torch.zeros(2, 2)})["kernel"].split(" ")[0]
        'float32[2,2]'
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, torch.dtype):
        return str(value)
    if isinstance(value, Tensor):
        shape = ",".join(map(str, value.shape))
        return f"{str(value.dtype).removeprefix('torch.')}[{shape}] {_digest(value) if value.numel() else ''}"
    if isinstance(value, Mapping):
        return {str(key): describe(item) for key, item in value.items()}
    if isinstance(value, Sequence):
        return [describe(item) for item in value]
    kind = type(value).__qualname__
    if isinstance(value, torch.nn.Module):
        return {"type": kind, "weights": describe(value.state_dict())}
    if is_dataclass(value):
        return {"type": kind, **{field.name: describe(getattr(value, field.name)) for field in fields(value)}}
    if hasattr(value, "__qualname__"):
        return f"{value.__module__}.{value.__qualname__}"
    held = {name: item for name, item in getattr(value, "__dict__", {}).items() if isinstance(item, _PLAIN)}
    return {"type": kind, **{name: describe(item) for name, item in held.items()}}


_PLAIN = (bool, int, float, str, Tensor, torch.nn.Module)


def difference(there: Any, here: Any, name: str = "") -> str | None:
    """The first value in which two descriptions differ, in words; None if there is none."""
    if isinstance(there, dict) and isinstance(here, dict):
        for key in [*here, *(key for key in there if key not in here)]:
            inner = f"{name}.{key}" if name else key
            if found := difference(there.get(key), here.get(key), inner):
                return found
        return None
    return None if there == here else f"{name} is {there} there and {here} here"
