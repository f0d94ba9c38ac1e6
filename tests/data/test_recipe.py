import dataclasses
import json

import pytest
import torch

from eqflow.data import Recipe
from eqflow.systems.gray_scott import GrayScott

PLAIN = {
    "name": "custom",
    "samples": 10,
    "height": 32,
    "width": 48,
    "steps": 100,
    "every": None,
    "feed": 0.018,
    "kill": 0.049,
    "diffusion_u": 0.16,
    "diffusion_v": 0.08,
}


def test_numbers_become_grids():
    recipe = Recipe(**PLAIN)
    assert recipe.feed == (0.018,)
    assert recipe.system(7) == GrayScott(0.018, 0.049)


def test_json_round_trip():
    recipe = Recipe(**PLAIN | {"feed": [0.1, 0.2], "every": 10, "seed": 2**64 - 1, "shard_samples": 3})
    assert Recipe.from_json(json.loads(json.dumps(recipe.to_json()))) == recipe


def test_json_of_another_format_is_refused():
    values = Recipe(**PLAIN).to_json()
    with pytest.raises(ValueError, match="expected a recipe of format 1, got 99"):
        Recipe.from_json({**values, "format": 99})
    with pytest.raises(ValueError, match="missing or unknown fields in the recipe: colour, seed"):
        Recipe.from_json({key: value for key, value in values.items() if key != "seed"} | {"colour": 1})


def test_frames_and_times():
    last = Recipe(**PLAIN)
    assert (last.frames, last.times) == (1, [100])
    several = Recipe(**PLAIN | {"every": 25, "dt": 0.5})
    assert (several.frames, several.times) == (5, [0, 12.5, 25, 37.5, 50])


def test_shards_cover_the_samples():
    recipe = Recipe(**PLAIN | {"shard_samples": 4})
    assert [list(recipe.shard(i)) for i in range(recipe.shards)] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


@pytest.mark.parametrize(
    ("size", "steps", "every", "expected"),
    [(128, 10_000, None, 512), (128, 10_000, 10, 2), (4096, 10, None, 2), (16, 100, None, 131_072)],
)
def test_default_shard_is_bounded(size, steps, every, expected):
    recipe = Recipe.from_preset("wave", samples=10**6, size=size, steps=steps, every=every)
    assert recipe.shard_samples == expected
    assert expected == 1 or expected * recipe.sample_bytes <= 2**28
    assert dataclasses.replace(recipe, samples=3).shard_samples == expected


def test_a_sample_larger_than_a_shard_has_its_own():
    assert Recipe.from_preset("wave", samples=2, size=512, steps=10_000, every=10).shard_samples == 1


def test_sweep_combines_each_with_each():
    recipe = Recipe.from_preset("maze", samples=8, sweep={"feed": [0.02, 0.03], "kill": [0.05, 0.06, 0.07]})
    grid = [(feed, kill) for feed in (0.02, 0.03) for kill in (0.05, 0.06, 0.07)]
    rows = recipe.parameters(torch.arange(8))
    assert rows[:, :2].tolist() == [list(pair) for pair in grid + grid[:2]]
    assert rows[:, 2].tolist() == [0.16] * 8
    assert recipe.system(4) == GrayScott(0.03, 0.06)


def test_preset_fields_can_be_replaced():
    recipe = Recipe.from_preset("well-maze", samples=1, size=(20, 30), feed=0.03, initial="blobs", seed=4)
    assert (recipe.feed, recipe.kill, recipe.diffusion_u) == ((0.03,), (0.057,), (0.08192,))
    assert (recipe.height, recipe.width, recipe.steps, recipe.initial) == (20, 30, 10_000, "blobs")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "../wave"}, "expected a name of letters"),
        ({"name": ""}, "expected a name of letters"),
        ({"samples": 0}, "expected samples from 1 up, got 0"),
        ({"samples": 2**32}, "samples below 2"),
        ({"height": 2}, "expected height from 3 up, got 2"),
        ({"steps": -1}, "expected steps from 0 up, got -1"),
        ({"steps": 1.5}, "expected steps as a whole number, got 1.5"),
        ({"every": 0}, "expected `every` to divide steps = 100, got 0"),
        ({"every": 30}, "expected `every` to divide steps = 100, got 30"),
        ({"seed": -1}, "expected seed from 0 up, got -1"),
        ({"seed": 2**64}, "expected seed below 2"),
        ({"shard_samples": 0}, "expected shard_samples from 1 up, got 0"),
        ({"stencil": "7-point"}, "expected stencil '5-point' or '9-point', got '7-point'"),
        ({"initial": "disks"}, "expected a start among discs"),
        ({"width": 14}, "needs at least 15 x 15"),
        ({"feed": (0.1, 0.2), "kill": (0.1, 0.2, 0.3)}, "of length 1 or 3"),
        ({"feed": ()}, "of length 1 or 1"),
        ({"feed": -0.1}, r"expected feed finite and not negative, got \[-0.1\]"),
        ({"kill": float("nan")}, "expected kill finite"),
        ({"dt": 0}, "expected dt and dx above 0"),
        ({"dt": 1.6}, "dt = 1.6 is unstable for feed = 0.018.*limit is 1.541 for the 5-point"),
        ({"diffusion_u": (0.1, 0.3)}, "unstable for .*diffusion_u = 0.3"),
    ],
)
def test_bad_fields_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        Recipe(**PLAIN | change)


def test_unknown_sweep_is_refused():
    with pytest.raises(ValueError, match="expected a sweep over feed, kill, diffusion_u, diffusion_v, got dt"):
        Recipe.from_preset("wave", samples=1, sweep={"dt": [1, 2]})
