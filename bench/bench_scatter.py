"""Images of scattered pictures per second beside what one would write: `python -m bench.bench_scatter`.

The peers are given the places that were accepted and only have to paint: Pillow turns, resizes and pastes each picture,
NumPy blends pictures that have been turned before. eqflow must give the numbers of the float64 reference before it is
timed, and the peers, which round places to pixels, the same population. Contestants take turns in one run, each is
judged by its best turn, on one thread.
"""

from __future__ import annotations

import argparse

from bench import timing

timing.one_thread()  # before any library makes its threads

import numpy as np  # noqa: E402
import torch  # noqa: E402
from PIL import Image  # noqa: E402
from torch import Tensor  # noqa: E402

from bench import machine  # noqa: E402
from eqflow import ops  # noqa: E402
from eqflow.data import read_creature  # noqa: E402
from eqflow.ops.scatter import reference  # noqa: E402

COUNT, CHECKED, SIZE, TURNS = 64, 4, 128, 48
SEED, ATTEMPTS, OVERLAP, WHITE = 0, 40, 0.05, [1.0, 1.0, 1.0]
TOLERANCE = 1e-5  # of colours in [-1, 1]
PEER_TOLERANCE = 0.03  # in the mean; half a pixel more along both axes makes 0.04, turns the wrong way 0.12


def pillow(picture: Tensor, places: list[list[float]]) -> np.ndarray:
    """One image."""
    levels = (picture * 255).round().byte().permute(1, 2, 0).contiguous().numpy()
    creature, canvas = Image.fromarray(levels), Image.new("RGBA", (SIZE, SIZE), "white")
    side = creature.width // 2
    for _, row, column, turn, _ in places:
        stamp = creature.rotate(360 * turn, Image.Resampling.BICUBIC).resize((side, side), Image.Resampling.BOX)
        top, left = round(row - (side - 1) / 2), round(column - (side - 1) / 2)
        for down in {0, -SIZE if top + side > SIZE else 0, SIZE if top < 0 else 0}:
            for right in {0, -SIZE if left + side > SIZE else 0, SIZE if left < 0 else 0}:
                canvas.paste(stamp, (left + right, top + down), stamp)
    return np.asarray(canvas, np.float32)[..., :3].transpose(2, 0, 1) / 255


def turned_before(picture: Tensor) -> np.ndarray:
    """[TURNS, 4, side, side]."""
    levels = (picture * 255).round().byte().permute(1, 2, 0).contiguous().numpy()
    creature = Image.fromarray(levels)
    turned = [creature.rotate(360 * turn / TURNS, Image.Resampling.BICUBIC) for turn in range(TURNS)]
    small = [image.resize((image.width // 2,) * 2, Image.Resampling.BOX) for image in turned]
    return np.stack([np.asarray(image, np.float32) / 255 for image in small]).transpose(0, 3, 1, 2)


def numpy(stamps: np.ndarray, places: list[list[float]]) -> np.ndarray:
    """One image."""
    canvas, side = np.ones((3, SIZE, SIZE), np.float32), stamps.shape[-1]
    for _, row, column, turn, _ in places:
        stamp = stamps[round(turn * TURNS) % TURNS]
        rows = (round(row - (side - 1) / 2) + np.arange(side)) % SIZE
        columns = (round(column - (side - 1) / 2) + np.arange(side)) % SIZE
        there = np.ix_(range(3), rows, columns)
        canvas[there] = canvas[there] * (1 - stamp[3]) + stamp[:3] * stamp[3]
    return canvas


def race(name: str, pixels: float, seconds: float) -> list[str]:
    picture = read_creature(name, pixels=pixels).picture
    scaled = torch.cat([2 * picture[:3] - 1, picture[3:]])[None]

    def eqflow() -> ops.Scatter:
        options = {"background": WHITE, "seed": SEED, "attempts": ATTEMPTS, "overlap": OVERLAP}
        return ops.scatter(scaled, COUNT, (SIZE, SIZE), **options, backend="native")

    found = eqflow()
    numbers = (CHECKED, SIZE, SIZE, SEED, 0, ATTEMPTS, 1.0, 1.0, 1.0, OVERLAP, 0.0, 0.0, True, 2)
    exact = reference(scaled.double(), *numbers, torch.tensor(WHITE, dtype=torch.float64))
    error = float((found.images[:CHECKED] - exact.images).abs().max())
    assert error <= TOLERANCE, f"eqflow differs from the float64 reference by {error:.2g}: not timed"
    kept = [places[places[:, 0].isfinite()].tolist() for places in found.placements]
    stamps = turned_before(picture)
    runs = {
        "eqflow": eqflow,
        "Pillow": lambda: [pillow(picture, places) for places in kept],
        "NumPy, turned before": lambda: [numpy(stamps, places) for places in kept],
    }
    errors = {"eqflow": f"{error:.0e} at most"}
    for peer in ("Pillow", "NumPy, turned before"):
        images = 2 * torch.from_numpy(np.stack(runs[peer]())) - 1
        away = float((images - found.images).abs().mean())
        assert away <= PEER_TOLERANCE, f"{peer} paints another population, {away:.2g} away in the mean: not timed"
        errors[peer] = f"{away:.0e} in the mean"
    speeds = timing.compete({peer: (run, COUNT) for peer, run in runs.items()}, seconds)
    placed, ours = float(found.placed.double().mean()), speeds["eqflow"].best
    return [
        f"| {name}, {pixels:g} pixels | {placed:.1f} | {peer} | {speed.best:.0f} | {speed.middle:.0f} "
        f"| {ours / speed.best:.1f} | {errors[peer]} |"
        for peer, speed in speeds.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0, help="for each creature (default 5)")
    parser.add_argument("--pixels", type=float, nargs="*", default=[16, 20])
    options = parser.parse_args()
    print(f"{machine.sentence(machine.describe())}. {SIZE} x {SIZE}, {ATTEMPTS} attempts, one thread.\n")
    print("| creature | an image | | images/s, best turn | median | eqflow is x times faster | differs by |")
    print("|---|---|---|---|---|---|---|")
    for pixels in options.pixels:
        print("\n".join(race("firefly", pixels, options.seconds)), flush=True)


if __name__ == "__main__":
    main()
