"""Where a dataset goes and where it is computed: all that can be wrong is found before the first file."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from eqflow.cli._shell import Problem, choice, in_options, usage
from eqflow.cli._words import bytes_, count


def folder(out: Path | None) -> Path:
    """The folder to write to, if it is or can be one."""
    if out is None:
        raise usage("expected --out FOLDER, where the dataset goes, got none: add for example --out wave")
    if out.exists() and not out.is_dir():
        raise Problem(f"expected --out to be a folder, but {out} is a file: choose another --out")
    parent = next(path for path in (out, *out.absolute().parents) if path.exists())
    if not parent.is_dir():
        raise Problem(f"expected --out inside a folder, but {parent} is a file: choose another --out")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise Problem(f"expected to be allowed to write in {parent}: choose another --out, or change its permissions")
    return out


def device(name: str, backend: str) -> str:
    """The device to run on, with torchrun's LOCAL_RANK; `auto` takes a GPU where one can be used."""
    import torch

    from eqflow import ops
    from eqflow.ops import _backend

    choice("--backend", backend, ("auto", *_backend.BACKENDS))
    local = os.environ.get("LOCAL_RANK", "0")
    if name == "auto":
        usable = [reason is None for key, reason in ops.backends("cuda").items() if key != "reference"]
        name = "cuda" if torch.cuda.is_available() and any(usable) else "cpu"
    if name == "cuda" and local.isdigit():
        name = f"cuda:{local}"
    try:
        _backend.choose(backend, _backend.check_device(name))
    except ops.BackendError as error:
        raise Problem(in_options(error)) from None
    if name == "meta":
        raise usage("expected --device auto, cpu or cuda, got 'meta'")
    return name


def stored(folder: Path) -> Any:
    """The recipe of the dataset in a folder, or None."""
    from eqflow.data import DatasetError
    from eqflow.data.folder import stored_recipe

    try:
        return stored_recipe(folder)
    except DatasetError as error:
        raise Problem(in_options(error)) from None


def claim(recipe: Any, folder: Path, overwrite: bool) -> bool:
    """Refuse a folder that holds something else, and what cannot fit on the disk.

    Returns:
        Whether what is there may be replaced: on demand, or because another dataset was begun without a single file.
    """
    found, train = stored(folder), folder / "data" / "train"
    overwrite = overwrite or bool(found and not (train.is_dir() and any(train.iterdir())))
    if found and not overwrite and found != recipe:
        there, here = found.to_json(), recipe.to_json()
        name = next(key for key in here if here[key] != there[key])
        raise Problem(
            f"expected {folder} to be new or to hold the same dataset, but it was made with "
            f"{name} {_brief(there[name])}, not {_brief(here[name])}: choose another --out, "
            "or replace it with --overwrite"
        )
    if folder.exists() and any(folder.iterdir()):
        return overwrite
    needed = recipe.samples * recipe.sample_bytes
    free = shutil.disk_usage(next(path for path in (folder, *folder.absolute().parents) if path.exists())).free
    if needed > free:
        raise Problem(
            f"expected {bytes_(needed)} of free disk for {count(recipe.samples)} samples of {count(recipe.frames)} "
            f"frames, found {bytes_(free)}: take fewer --samples, a larger --every, or another --out"
        )
    return overwrite


def _brief(value: Any) -> str:
    if isinstance(value, list) and len(value) > 1:
        return f"{value[0]:g} to {value[-1]:g} in {len(value)} points"
    return str(value[0] if isinstance(value, list) else value)
