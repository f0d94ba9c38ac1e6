"""Processes that train together, as torchrun starts them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def together(this: int, ranks: int, where: str) -> Iterator[Callable[[], None]]:
    """Torch's process group around some work, with a barrier; for one process nothing at all.

    Args:
        this: rank of this process.
        ranks: how many there are.
        where: the device: NCCL on GPUs, gloo elsewhere.
    """
    if ranks == 1:
        yield lambda: None
        return
    import torch
    import torch.distributed as processes

    if where.startswith("cuda"):
        torch.cuda.set_device(where)
    processes.init_process_group("nccl" if where.startswith("cuda") else "gloo", rank=this, world_size=ranks)
    try:
        yield processes.barrier
    finally:
        processes.destroy_process_group()
