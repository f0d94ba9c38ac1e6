"""`pytest bench/bench_scatter.py`: images of scattered pictures per second beside what one would write, one thread.

The peers are given the places that were accepted and only have to paint: Pillow turns, resizes and pastes each picture,
NumPy blends pictures that have been turned before.
"""

import pytest

pytest.importorskip("pytest_benchmark", reason="pytest-benchmark is not installed: pip install 'eqflow[bench]'")

import numpy as np
import torch
from PIL import Image

from bench.timing import one_thread
from eqflow import ops
from eqflow.data import read_creature

pytestmark = pytest.mark.filterwarnings("default")
COUNT, SIZE, TURNS = 64, 128, 48


def scene():
    """A creature and the images it is scattered on."""
    one_thread()
    picture = read_creature("firefly", pixels=18).picture
    scaled = torch.cat([2 * picture[:3] - 1, picture[3:]])[None]
    run = lambda: ops.scatter(scaled, COUNT, (SIZE, SIZE), background=[1.0] * 3, seed=0, coverage=0.16)  # noqa: E731
    return picture, run, run()


def pillow(picture: torch.Tensor, places: list[list[float]]) -> Image.Image:
    """One image."""
    levels = (picture * 255).round().byte().permute(1, 2, 0).numpy()
    creature, canvas = Image.fromarray(levels, "RGBA"), Image.new("RGBA", (SIZE, SIZE), "white")
    side = creature.width // 2
    for _, row, column, turn, _ in places:
        stamp = creature.rotate(360 * turn, Image.Resampling.BICUBIC).resize((side, side), Image.Resampling.BOX)
        top, left = round(row - side / 2), round(column - side / 2)
        for down in {0, -SIZE if top + side > SIZE else 0, SIZE if top < 0 else 0}:
            for right in {0, -SIZE if left + side > SIZE else 0, SIZE if left < 0 else 0}:
                canvas.paste(stamp, (left + right, top + down), stamp)
    return canvas


def numpy(stamps: np.ndarray, places: list[list[float]]) -> np.ndarray:
    """One image."""
    canvas, side = np.ones((3, SIZE, SIZE), np.float32), stamps.shape[-1]
    for _, row, column, turn, _ in places:
        stamp = stamps[int(turn * TURNS)]
        rows = (round(row - side / 2) + np.arange(side)) % SIZE
        columns = (round(column - side / 2) + np.arange(side)) % SIZE
        there = np.ix_(range(3), rows, columns)
        canvas[there] = canvas[there] * (1 - stamp[3]) + stamp[:3] * stamp[3]
    return canvas


@pytest.mark.parametrize("name", ["eqflow", "Pillow", "NumPy, turned before"])
def test_images_per_second(benchmark, name):
    picture, run, found = scene()
    kept = [places[places[:, 0].isfinite()].tolist() for places in found.placements]
    if name == "eqflow":
        work = run
    elif name == "Pillow":
        work = lambda: [pillow(picture, places) for places in kept]  # noqa: E731
    else:
        levels = (picture * 255).round().byte().permute(1, 2, 0).numpy()
        turned = [Image.fromarray(levels, "RGBA").rotate(360 * turn / TURNS) for turn in range(TURNS)]
        half = [np.asarray(image.resize((image.width // 2,) * 2), np.float32) / 255 for image in turned]
        stamps = np.stack(half).transpose(0, 3, 1, 2)
        work = lambda: [numpy(stamps, places) for places in kept]  # noqa: E731
    benchmark.pedantic(work, rounds=8, warmup_rounds=1)
    benchmark.extra_info["creatures an image"] = float(found.placed.double().mean())
    benchmark.extra_info["images/s"] = COUNT / benchmark.stats.stats.min
