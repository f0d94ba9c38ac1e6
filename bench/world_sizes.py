"""`python -m bench.world_sizes`: steps a second and memory of worlds of many sizes from one score.

Each size is a process of its own: the most memory that it has held, less that before the first step, and the best of a
few turns of a few steps. Both should grow with the area, and memory by little more than the state itself.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import time
from itertools import pairwise
from pathlib import Path

from bench import machine
from bench.stream_weak_form import peak_memory

NAME, SIZES, ETA = "firefly", (128, 256, 512, 1024, 2048), 0.1
TURNS = 3


def measure(size: int, threads: int) -> dict[str, float]:
    """Of one size."""
    import torch

    from eqflow.dynamics import SkewFlow, rollout, skew
    from eqflow.dynamics.observers import Watcher
    from eqflow.score import pretrained

    torch.set_num_threads(threads)
    stored = pretrained(NAME)
    score = stored.denoiser.at()
    score.denoiser.to(memory_format=torch.channels_last)
    flow = SkewFlow(score, skew.random(3, 0, 0), ETA)
    state = score.noised(stored.fields(range(1), size=(size, size)), seed=0)
    before, dt, times = peak_memory(), (1 - score.alpha) / 4, []
    every = max(1, 2**18 // size**2)
    watch = Watcher(lambda step, time_: times.append(time.perf_counter()), every)
    rollout(state, flow, TURNS * every, dt=dt, observers=[watch], guard_every=None)
    best = min(after - begin for begin, after in pairwise(times)) / every
    return {
        "size": size,
        "steps_per_second": 1 / best,
        "nanoseconds_per_pixel": 1e9 * best / size**2,
        "memory_mb": peak_memory() - before,
        "state_mb": state.nbytes / 1e6,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1, metavar="N")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, metavar="N")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the figures as JSON")
    given = parser.parse_args()
    rows = []
    print("size   steps/s   ns/pixel   memory, MB   state, MB")
    for size in given.sizes:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            row = pool.apply(measure, (size, given.threads))
        rows.append(row)
        print(
            f"{size:<6} {row['steps_per_second']:<9.3g} {row['nanoseconds_per_pixel']:<10.3g} "
            f"{row['memory_mb']:<12.4g} {row['state_mb']:.4g}",
            flush=True,
        )
    if given.out:
        values = {"machine": machine.describe(), "threads": given.threads, "worlds": rows}
        given.out.write_text(json.dumps(values, indent=2) + "\n")


if __name__ == "__main__":
    main()
