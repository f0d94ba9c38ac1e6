"""Ratios that other work on the machine cannot spoil: contestants take turns, each is judged by its best turn."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from statistics import median
from typing import NamedTuple


class Speed(NamedTuple):
    """Work per second of one contestant."""

    best: float
    middle: float  # median over the turns
    busy: float  # processor time over wall time: 1 for one undisturbed thread
    turns: int


def one_thread() -> None:
    """Hold this process, and every library loaded from now on, to one thread on one core."""
    os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["NUMBA_NUM_THREADS"] = "1"
    if hasattr(os, "sched_setaffinity"):  # XLA sizes its pool by the cores it may use
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    import torch

    torch.set_num_threads(1)


def free_threads(count: int) -> None:
    """The opposite: `count` threads on any core."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, range(os.cpu_count()))
    import torch

    torch.set_num_threads(count)


def turn_size(run: Callable[[int], object], seconds: float, first: int) -> int:
    """The amount of work that takes `run` about `seconds` of processor time, at least `first`."""
    amount, took = first, 0.0
    run(first)
    while took < seconds / 4:
        begin = time.process_time()  # on a busy machine wall time would tell of others
        run(amount)
        took = time.process_time() - begin
        amount *= 4
    return max(first, round(amount / 4 * seconds / took))


def compete(
    runs: dict[str, tuple[Callable[[], object], float]],  # {name: (run, work of one turn)}
    seconds: float,
    clock: Callable[[], float] = time.process_time,
) -> dict[str, Speed]:
    """Let all run in turn until `seconds` have passed, at least five times.

    Processor time is the clock for one thread: on a quiet machine it is wall time, on a busy one it leaves out the
    waits for other programs. Several threads need `time.perf_counter`.
    """
    taken: dict[str, list[float]] = {name: [] for name in runs}
    processor, wall = dict.fromkeys(runs, 0.0), dict.fromkeys(runs, 0.0)
    for run, _ in runs.values():
        run()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(taken[next(iter(runs))]) < 5:
        for name, (run, _) in runs.items():
            busy, real, begin = time.process_time(), time.perf_counter(), clock()
            run()
            taken[name].append(clock() - begin)
            wall[name] += time.perf_counter() - real
            processor[name] += time.process_time() - busy
    return {
        name: Speed(work / min(times), work / median(times), processor[name] / wall[name], len(times))
        for (name, (_, work)), times in zip(runs.items(), taken.values(), strict=True)
    }
