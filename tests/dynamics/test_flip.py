import pytest
import torch

from eqflow.dynamics import choose_flip
from eqflow.score import Gaussian


def test_lorenz_has_one_flip_and_it_is_built_in(lorenz_pairs):
    noised, scores, _, _ = lorenz_pairs(50_000, 20_000)
    flip = choose_flip(noised, scores)
    assert flip.found.tolist() == [[-1, -1, 1]] and flip.signs.tolist() == [-1, -1, 1]
    assert flip.signs.dtype == torch.float32 and "(-1, -1, +1)" in flip.reason
    assert 0.2 < flip.odd < flip.even < 1.5 * flip.odd < 0.8


def test_turning_is_even_under_half_a_turn_and_odd_under_reflections(ring):
    flip = choose_flip(*ring)
    assert sorted(flip.found.tolist()) == [[-1, -1], [-1, 1], [1, -1]]
    assert flip.signs.tolist() == [-1, -1]
    reflections = flip.found.prod(1) < 0
    assert (flip.even[reflections] > 1.5 * flip.odd[reflections]).all()


def test_opposite_vortices_break_half_a_turn(two_gaussians):
    points, scores = two_gaussians(0.3)
    flip = choose_flip(points, scores, probes=1)
    assert [-1, -1] in flip.found.tolist()
    assert flip.signs is None or flip.signs.tolist() != [-1, -1]


def test_no_symmetry_is_found_where_there_is_none():
    density = Gaussian(torch.zeros(2), 1.0)
    points = density.sample(4000, seed=0)
    points = (points.exp() - points.exp().mean(0)) / points.exp().std(0)  # skew in both coordinates
    flip = choose_flip(points, -points)
    assert flip.signs is None and len(flip.found) == 0 and "no flip of signs leaves" in flip.reason


def test_many_coordinates_are_not_searched():
    flip = choose_flip(torch.zeros(5, 9), torch.zeros(5, 9))
    assert flip.signs is None and "9 coordinates have 2^9 flips" in flip.reason


def test_wrong_pairs_are_refused():
    points = torch.randn(100, 2, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match="expected points and scores"):
        choose_flip(points, points[:50])
