"""One file of named tensors with a note: replaced whole or not at all, the same bytes for the same numbers."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from eqflow.data.files import DatasetError, explained, write_whole

_NOTE = "eqflow"  # the format keeps several notes in no order, and the bytes would change from run to run


def save_tensors(path: str | os.PathLike, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """Write tensors and a note of plain values as a safetensors file.

    Args:
        path: the file; its folder is made.
        tensors: by name.
        about: plain values, kept as JSON beside the tensors.

    Raises:
        DatasetError: the disk refuses.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_tensors(folder + "/a.safetensors", {"mean": torch.zeros(2)}, {"alpha": 0.95})
        ...     read_tensors(folder + "/a.safetensors")
        ({'mean': tensor([0., 0.])}, {'alpha': 0.95})
    """
    held = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    content = save(held, {_NOTE: json.dumps(about, sort_keys=True)})
    write_whole(Path(path), content)


def read_tensors(path: str | os.PathLike) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of a file of `save_tensors`, on the CPU, and its note.

    Raises:
        DatasetError: the file is not there, or is damaged.
    """
    path = Path(path)
    try:
        with explained("read", path), safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return tensors, json.loads((file.metadata() or {})[_NOTE])
    except (SafetensorError, KeyError, ValueError) as error:
        raise DatasetError(f"{path} is damaged ({error}): delete it and run the same command again") from None
