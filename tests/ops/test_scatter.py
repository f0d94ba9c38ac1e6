"""Scattered pictures: against the specification, against chance, and however they are split."""

import math

import pytest
import torch

from eqflow import ops
from eqflow.ops.scatter import _prepared, reference

WHITE = [1.0, 1.0, 1.0]


def picture(side: int = 32) -> torch.Tensor:
    """A disc with a smaller one of another colour at its upper edge."""
    axis = torch.arange(side) - (side - 1) / 2
    large = torch.hypot(axis[:, None], axis) < 0.3 * side
    small = torch.hypot(axis[:, None] + 0.3 * side, axis) < 0.15 * side
    found = torch.zeros(4, side, side)
    found[0], found[1], found[2] = -0.5, 0.8, 0.1
    found[:3, small] = torch.tensor([0.9, -0.9, -0.9])[:, None]
    found[3] = (large | small).float()
    return found


TWO = torch.stack([picture(), picture() * torch.tensor([-1.0, -1.0, 1.0, 1.0])[:, None, None]])
OPTIONS = {"background": WHITE, "seed": 7, "attempts": 24}


def exact(pictures, size, *, background, seed, attempts, coverage=1.0, scale=(1.0, 1.0), fading=0.0, turn=True):
    """The specification in float64, rounded once."""
    numbers = (3, *size, seed, 0, attempts, coverage, *scale, 0.05, fading, 0.5, turn, 2)
    found = reference(pictures.double(), *numbers, torch.tensor(background, dtype=torch.float64))
    return ops.Scatter(*(part if part is None else part.float() for part in found))


@pytest.mark.parametrize("size", [(48, 48), (40, 67)])
@pytest.mark.parametrize("more", [{}, {"scale": (0.7, 1.4)}, {"coverage": 0.2}, {"turn": False}, {"fading": 0.3}])
def test_native_is_the_reference(size, more):
    check_against_the_reference(TWO, size, more)


def test_soft_pictures_are_those_of_the_reference():
    axis = torch.arange(40) - 19.5
    for turn in (0.0, 0.6):  # a blob that never ends, round or not
        alpha = torch.exp(-((axis[:, None] + turn * axis) ** 2 + axis**2) / 50)
        check_against_the_reference(torch.stack([-alpha, alpha, 1 - alpha, alpha])[None], (64, 57), {})


def check_against_the_reference(pictures: torch.Tensor, size: tuple[int, int], more: dict) -> None:
    native = ops.scatter(pictures, 3, size, **OPTIONS, **more)
    expected = exact(pictures, size, **OPTIONS, **more)
    assert native.placed.tolist() == expected.placed.tolist() and native.placed.min() > 1
    single = ops.scatter(pictures, 3, size, **OPTIONS, **more, backend="reference")
    assert single.placed.tolist() == native.placed.tolist()
    torch.testing.assert_close(native.placements, expected.placements, atol=1e-5, rtol=1e-6, equal_nan=True)
    torch.testing.assert_close(native.images, expected.images, atol=1e-5, rtol=0)
    if more.get("fading"):
        torch.testing.assert_close(native.faded, expected.faded, atol=1e-5, rtol=0)
        assert not torch.equal(native.faded, native.images)


def test_images_do_not_depend_on_the_split():
    whole = ops.scatter(TWO, 8, (48, 40), **OPTIONS)
    parts = [ops.scatter(TWO, 3, (48, 40), **OPTIONS), ops.scatter(TWO, 5, (48, 40), first_sample=3, **OPTIONS)]
    assert torch.equal(whole.images, torch.cat([part.images for part in parts]))
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        assert torch.equal(whole.images, ops.scatter(TWO, 8, (48, 40), **OPTIONS).images)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("more", [{}, {"fading": 0.5, "scale": (0.7, 1.2), "oversample": 3}])
def test_every_instruction_set_gives_the_same_bits(more):
    from eqflow import _C

    best, found = _C.cpu_isa(), []
    try:
        for isa in _C.cpu_isas():
            _C.set_cpu_isa(isa)
            found.append(ops.scatter(TWO, 4, (48, 48), **OPTIONS, **more))
    finally:
        _C.set_cpu_isa(best)
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            assert a is b is None or torch.equal(a.nan_to_num(-1), b.nan_to_num(-1))


def test_places_turns_and_scales_are_uniform():
    found = ops.scatter(TWO, 4000, (40, 56), background=WHITE, seed=1, attempts=1, scale=(0.5, 1.0)).placements[:, 0]
    assert found.isfinite().all()
    unit = [found[:, 1] / 40, found[:, 2] / 56, found[:, 3], (found[:, 4] - 0.5) * 2]
    for values in unit:  # Kolmogorov-Smirnov, at one in a thousand
        ranks = (torch.arange(4000) + 0.5) / 4000
        assert (values.sort().values - ranks).abs().max() < 1.95 / 4000**0.5
    assert abs(found[:, 0].mean() - 0.5) < 4 * 0.5 / 4000**0.5
    assert torch.corrcoef(torch.stack(unit))[torch.triu_indices(4, 4, 1).unbind()].abs().max() < 4 / 4000**0.5


def test_no_two_pictures_overlap_beyond_the_stated_alpha():
    for overlap in (0.02, 0.5):
        found = ops.scatter(TWO, 4, (64, 64), background=WHITE, seed=3, attempts=60, overlap=overlap)
        lonely = 2 * torch.ones(2, 1, 32, 32)
        lonely = torch.cat([lonely, TWO[:, 3:]], 1)  # colour 2 over a background of 0: half the image is the alpha
        for image in range(4):
            alphas = []
            for species, *_ in found.placements[image][found.placements[image, :, 0].isfinite()].tolist():
                alphas.append(int(species))
            assert len(alphas) > 4
        again = ops.scatter(lonely, 4, (64, 64), background=[0.0], seed=3, attempts=60, overlap=overlap)
        assert torch.equal(again.placements.isfinite(), found.placements.isfinite())
        summed = again.images / 2  # 1 - product of 1 - alpha
        layers = _one_by_one(lonely, again, overlap)
        assert (torch.minimum(layers.amax(1), _second(layers)) <= overlap + 1e-5).all()
        torch.testing.assert_close(1 - (1 - layers).prod(1), summed[:, 0], atol=1e-4, rtol=0)


def _one_by_one(pictures: torch.Tensor, found: ops.Scatter, overlap: float) -> torch.Tensor:
    """The alpha of every attempt alone, [images, attempts, height, width], by the placements."""
    layers = _prepared(pictures, 2).layers
    side, (count, attempts, _) = layers.shape[1], found.placements.shape
    height, width = found.images.shape[2:]
    out = torch.zeros(count, attempts, height, width)
    for image in range(count):
        for attempt in range(attempts):
            species, row, column, turn, scale = found.placements[image, attempt].tolist()
            if math.isnan(species):
                continue
            y = (torch.arange(height) - row + height / 2).remainder(height) - height / 2
            x = (torch.arange(width) - column + width / 2).remainder(width) - width / 2
            sine, cosine = math.sin(2 * math.pi * turn), math.cos(2 * math.pi * turn)
            across = (cosine * x[None] - sine * y[:, None]) * 2 / scale * 2 / (side - 1)
            down = (sine * x[None] + cosine * y[:, None]) * 2 / scale * 2 / (side - 1)
            layer = layers[int(species), ..., 1][None, None]
            grid = torch.stack([across, down], -1)[None]
            out[image, attempt] = torch.nn.functional.grid_sample(layer, grid, align_corners=True)[0, 0]
    return out


def _second(layers: torch.Tensor) -> torch.Tensor:
    return layers.topk(2, 1).values[:, 1]


def test_coverage_is_kept():
    shown = torch.stack([torch.ones(32, 32), TWO[0, 3]])[None]  # colour 1 over 0: the image is the alpha
    found = ops.scatter(shown, 6, (96, 96), background=[0.0], seed=0, coverage=0.15)
    share = found.images.mean((1, 2, 3))
    one = share / found.placed
    assert (share <= 0.15).all() and (share + one > 0.15).all()


def test_a_wrapped_picture_is_a_shifted_one():
    """At whatever pixel of a torus it lies: the same as in the middle, where nothing is wrapped."""
    found = ops.scatter(TWO[:1], 40, (40, 44), background=WHITE, seed=2, attempts=1, turn=False)
    y, x = torch.meshgrid(torch.arange(40), torch.arange(44), indexing="ij")
    layer = _prepared(TWO[:1], 2).layers.permute(0, 3, 1, 2)
    side = layer.shape[-1]
    for image, (_, row, column, *_) in zip(found.images, found.placements[:, 0].tolist(), strict=True):
        down, right = 20 - int(row), 22 - int(column)
        grid = torch.stack([x - right - column, y - down - row], -1) * (2 * 2 / (side - 1))
        over = torch.nn.functional.grid_sample(layer, grid[None], align_corners=True)[0]
        expected = over[:3] + 1 - over[3]
        torch.testing.assert_close(image.roll((down, right), (1, 2)), expected, atol=3e-5, rtol=0)


def test_errors_name_the_remedy():
    with pytest.raises(ValueError, match="make it smaller, or the image larger"):
        ops.scatter(TWO, 1, (16, 64), **OPTIONS)
    with pytest.raises(ValueError, match="number 0 is clear"):
        ops.scatter(0 * TWO, 1, (64, 64), **OPTIONS)
    with pytest.raises(ValueError, match="expected square pictures"):
        ops.scatter(TWO[:, :3], 1, (64, 64), **OPTIONS)
    with pytest.raises(ValueError, match="expected coverage in"):
        ops.scatter(TWO, 1, (64, 64), coverage=2.0, **OPTIONS)
    with pytest.raises(ops.BackendError, match="on the host"):
        ops.scatter(TWO, 1, (64, 64), backend="triton", **OPTIONS)
