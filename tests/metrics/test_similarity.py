"""Cosines of fields and what they are without any likeness."""

import math

import pytest
import torch

from eqflow.metrics import (
    DirectionNull,
    align,
    cosines,
    mean_similarity,
    permutation_null,
    random_skew_fields,
    similarity,
)

DOUBLE = torch.float64


def normals(*shape, seed=0):
    return torch.randn(shape, dtype=DOUBLE, generator=torch.Generator().manual_seed(seed))


def distance_to_law(values, cdf):
    """Kolmogorov's largest distance, in units in which 1.63 is exceeded once in a hundred times."""
    values = values.sort().values
    expected = torch.tensor([cdf(float(value)) for value in values])
    steps = torch.arange(len(values) + 1) / len(values)
    return float(torch.maximum(steps[1:] - expected, expected - steps[:-1]).max()) * math.sqrt(len(values))


def test_cosines_are_those_of_the_long_vectors():
    fields, others = normals(4, 10, 3), normals(2, 10, 3, seed=1)
    expected = torch.nn.functional.cosine_similarity(fields.flatten(1)[:, None], others.flatten(1)[None], dim=2)
    torch.testing.assert_close(cosines(fields, others), expected)
    torch.testing.assert_close(similarity(-3 * fields, others), expected.abs())
    torch.testing.assert_close(cosines(fields).diagonal(), torch.ones(4, dtype=DOUBLE))
    assert cosines(fields.float()).dtype == DOUBLE


def test_aligned_fields_point_along_the_reference():
    fields, reference = normals(20, 10, 3), normals(10, 3, seed=1)
    aligned = align(fields, reference)
    assert (cosines(aligned, reference[None]) >= 0).all() and torch.equal(aligned.abs(), fields.abs())
    assert torch.equal(align(-fields, reference), aligned)


def test_means_over_pairs():
    matrix = torch.tensor([[1.0, 0.2, 0.4], [0.2, 1.0, 0.6], [0.4, 0.6, 1.0]])
    without, whole = mean_similarity(matrix, diagonal=False), mean_similarity(matrix, diagonal=True)
    assert (without.mean, without.pairs, whole.pairs) == (pytest.approx(0.4), 6, 9)
    assert without.deviation == pytest.approx(math.sqrt(0.08 / 3))
    assert whole.mean == pytest.approx((2 * 1.2 + 3) / 9)
    assert mean_similarity(matrix[:, :2]).pairs == 6
    with pytest.raises(ValueError, match="diagonal=True or False"):
        mean_similarity(matrix)
    with pytest.raises(ValueError, match="expected a square matrix"):
        mean_similarity(matrix[:, :2], diagonal=False)
    with pytest.raises(ValueError, match="at least two fields"):
        mean_similarity(matrix[:1, :1], diagonal=False)


def test_wrong_fields_are_refused():
    fields = normals(3, 10, 2)
    fields[1] = 0
    with pytest.raises(ValueError, match="field 1 is zero"):
        cosines(fields)
    with pytest.raises(ValueError, match=r"same points, got \[10, 2\] and \[9, 2\]"):
        cosines(fields, normals(2, 9, 2))


@pytest.mark.parametrize("dimension", [2, 3, 4, 10, 1000])
def test_the_law_of_random_directions(dimension):
    law = DirectionNull(dimension)
    vectors = normals(2, 4000, dimension)
    values = torch.nn.functional.cosine_similarity(*vectors, dim=1).abs()
    assert float(values.mean()) == pytest.approx(law.mean, rel=0.05)
    assert float(values.std()) == pytest.approx(law.deviation, rel=0.05)
    assert distance_to_law(values, law.cdf) < 1.63
    assert law.p_value(0.0) == pytest.approx(1, abs=1e-12) and law.p_value(1.0) == pytest.approx(0, abs=1e-12)


def test_the_law_in_two_and_three_dimensions_is_elementary():
    for cosine in (0.0, 0.1, 0.5, 0.9, 0.999):
        assert DirectionNull(3).cdf(cosine) == pytest.approx(cosine, abs=1e-12)
        assert DirectionNull(2).cdf(cosine) == pytest.approx(1 - 2 / math.pi * math.acos(cosine), abs=1e-12)
    assert DirectionNull(3).mean == pytest.approx(0.5) and DirectionNull(3).deviation == pytest.approx(12**-0.5)
    with pytest.raises(ValueError, match="at least two dimensions"):
        DirectionNull(1)


def test_constant_skew_fields_of_an_isotropic_score_follow_the_uniform_law():
    """Points at the six unit vectors: E[s s^T] is isotropic exactly."""
    scores = torch.cat([torch.eye(3), -torch.eye(3)]).double()
    fields = random_skew_fields(scores, 4000, seed=0)
    assert ((fields * scores).sum(-1).abs() < 1e-12).all()
    pairs = (fields[:2000] * fields[2000:]).sum((1, 2)) / (
        fields[:2000].norm(dim=(1, 2)) * fields[2000:].norm(dim=(1, 2))
    )
    assert distance_to_law(pairs.abs(), lambda value: value) < 1.63
    self_similarity = mean_similarity(similarity(fields[:200]), diagonal=False)
    assert self_similarity.mean == pytest.approx(0.5, abs=0.03)
    assert self_similarity.deviation == pytest.approx(12**-0.5, abs=0.02)


def test_similarity_with_a_fixed_field_is_uniform_up_to_the_best():
    scores = torch.cat([torch.eye(3), -torch.eye(3)]).double()
    reference = normals(6, 3)
    basis = random_skew_fields(scores, 3, seed=5).flatten(1)
    best = torch.linalg.lstsq(basis.T, reference.flatten()[:, None]).solution[:, 0] @ basis
    largest = float(best.norm() / reference.norm())
    values = similarity(random_skew_fields(scores, 3000, seed=0), reference[None])[:, 0]
    assert distance_to_law(values, lambda value: min(1.0, value / largest)) < 1.63


def test_random_skew_fields_depend_on_seed_and_index_only():
    scores = normals(5, 4)
    whole = random_skew_fields(scores, 6, seed=1)
    assert torch.equal(random_skew_fields(scores, 2, seed=1, first=3), whole[3:5])
    assert not torch.equal(random_skew_fields(scores, 6, seed=2), whole)


def test_shuffling_keeps_what_is_constant_and_destroys_the_rest():
    points = normals(300, 2)
    turning = torch.stack([-points[:, 1], points[:, 0]], 1)
    alike = permutation_null(turning, turning + 0.5 * normals(300, 2, seed=1), permutations=199)
    assert alike.p_value == 1 / 200 and alike.cosine > 0.8 and alike.mean < 0.1
    constant = torch.ones(300, 2, dtype=DOUBLE)
    noise = permutation_null(constant + 0.1 * normals(300, 2, seed=2), constant + 0.1 * normals(300, 2, seed=3))
    assert noise.cosine > 0.9 and noise.p_value > 0.01


def test_the_shuffle_test_keeps_its_level():
    rejected = sum(
        permutation_null(normals(20, 2, seed=n), normals(20, 2, seed=n + 5000), permutations=19, seed=n).p_value <= 0.1
        for n in range(400)
    )
    assert abs(rejected / 400 - 0.1) < 4 * math.sqrt(0.1 * 0.9 / 400)
