"""Any number of points through the weak form, in constant memory, on several processes.

The points are a stored cloud of the Lorenz system, 100,000 of them, that comes again and again, each time in other
chunks, new tensors in another order. So the answer is known: the coefficients are those of the cloud, whatever the
length of the stream. The errors would say how much the points tell only if they were all different.
"""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, distributed, multiprocessing

from bench import timing
from bench.peers_weak_form import DIFFUSION
from eqflow.fokker_planck import Fit, estimate, from_library, polynomial, random_cosines, weak_form
from eqflow.systems import Lorenz

CLOUD, CHUNK, PROCESSES = 100_000, 2**14, 2
FUNCTIONS, TOLERANCE = 40, 1e-7  # relative; rounding in the sums, times the condition of 30 terms
PASSES = 2  # of `estimate` with one round: the moments, then the covariance for the weights


class Repeated:
    """Points i = first .. last - 1 of the endless stream cloud[(17 i) mod CLOUD]."""

    def __init__(self, cloud: Tensor, first: int, last: int):
        self.cloud, self.first, self.last = cloud, first, last

    def __iter__(self) -> Iterator[Tensor]:
        for start in range(self.first, self.last, CHUNK):
            index = torch.arange(start, min(start + CHUNK, self.last))
            yield self.cloud[17 * index % len(self.cloud)]


def peak_memory() -> float:
    """The most that this process has held so far, in MB."""
    return int(re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())[1]) / 1e3


def fit(cloud: Tensor, points, combine=None) -> Fit:
    cosines = random_cosines(cloud.mean(0), cloud.std(0), FUNCTIONS)
    model = from_library(polynomial("x y z", 2), diffusion=DIFFUSION)
    return estimate(weak_form(points, model, functions=cosines, combine=combine), rounds=1)


def run(rank: int, folder: str, count: int) -> None:
    """One process: its share of the points, after a short stream that brings all it needs into memory."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=PROCESSES)
    cloud = torch.load(f"{folder}/cloud.pt")
    fit(cloud, Repeated(cloud, 0, CLOUD))
    before, begin = peak_memory(), time.perf_counter()
    found = fit(
        cloud, Repeated(cloud, count * rank // PROCESSES, count * (rank + 1) // PROCESSES), distributed.all_reduce
    )
    seconds = time.perf_counter() - begin
    torch.save((found.coefficients, seconds, before, peak_memory()), f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


def report(count: int) -> str:
    """Stream so many points, rounded to whole clouds, hold the answer against that of the cloud, and say how fast."""
    count = max(1, round(count / CLOUD)) * CLOUD
    cloud = Lorenz(diffusion=DIFFUSION).sample(CLOUD, seed=0)
    exact = fit(cloud, cloud).coefficients
    timing.free_threads(1)  # the processes inherit the cores of this one
    with tempfile.TemporaryDirectory() as folder:
        torch.save(cloud, f"{folder}/cloud.pt")
        multiprocessing.spawn(run, args=(folder, count), nprocs=PROCESSES)
        results = [torch.load(f"{folder}/{rank}.pt") for rank in range(PROCESSES)]
    error = max(float(((coefficients - exact) / exact).abs().max()) for coefficients, *_ in results)
    assert error <= TOLERANCE, f"the stream gives coefficients that differ by {error:.2g} from those of its cloud"
    seconds = max(result[1] for result in results)
    memory = ", ".join(f"{after:.0f} MB ({before:.0f} MB after {CLOUD:,})" for *_, before, after in results)
    return (
        f"{count:,} points, {FUNCTIONS} functions, 30 terms, {PROCESSES} processes of one thread: {PASSES} passes in "
        f"{seconds:.0f} s, {count / seconds / 1e6:.2f} M points/s for the whole estimate, "
        f"{PASSES * count / seconds / 1e6:.2f} M points/s a pass. Peak of resident memory of each process: {memory}. "
        f"The 30 coefficients are those of the cloud within {error:.0e}."
    )
