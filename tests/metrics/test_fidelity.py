import math

import pytest
import torch

from eqflow.metrics import displacement_cosines, fidelity
from eqflow.metrics.fidelity import without


def fields(seed, lags=1, samples=64, size=12):
    return torch.randn(lags, samples, 2, size, size, generator=torch.Generator().manual_seed(seed))


def planted(cosine, truth, seed):
    """Displacements that have this cosine with a truth of normal numbers, but for chance."""
    return cosine * truth + math.sqrt(1 - cosine**2) * fields(seed, *truth.shape[:2])


def test_a_planted_cosine_is_found_and_its_nulls_are_empty():
    truth, shared = fields(0), 3 * fields(1)
    odd = planted(0.3, truth, 2)
    other = planted(0.5, truth, 3)
    found = fidelity(
        shared + odd,
        shared - odd,
        truth,
        none=shared,
        other_truths={"other": other},
        other_kernels={"turned": fields(4)},
    )
    assert abs(float(found.odd.mean) - 0.3) < 4 * float(found.odd.error)
    assert float(found.odd.mean) > 10 * float(found.odd.error) and float(found.odd.agreeing) == 1
    for null in (found.even, found.none, found.other_sample, found.other_kernels["turned"]):
        assert abs(float(null.mean)) < 4 * float(null.error)
    assert abs(float(found.other_truths["other"].mean) - 0.15) < 4 * float(found.odd.error)
    assert abs(float(found.other_truths_apart["other"].mean)) < 4 * float(found.odd.error)
    assert float(found.change) == pytest.approx(1, abs=0.02)


def test_the_standard_error_is_that_of_the_mean_of_samples():
    truth = fields(5, samples=256)
    means = [float(displacement_cosines(planted(0.2, truth, seed), truth).mean) for seed in range(100, 120)]
    error = float(displacement_cosines(planted(0.2, truth, 100), truth).error)
    assert torch.tensor(means).std() == pytest.approx(error, rel=0.5)


def test_the_surface_is_over_times_and_lags():
    truth = fields(6, lags=3, samples=5)
    found = displacement_cosines(torch.cat([truth[1:2], -truth[2:]]), truth)
    assert found.mean.shape == (2, 3)
    assert found.mean[0].argmax() == 1 and found.mean[1].argmin() == 2
    assert float(found.mean[0, 1]) == pytest.approx(1) and float(found.mean[1, 2]) == pytest.approx(-1)


def test_samples_without_a_direction_are_left_out_and_counted():
    truth = fields(7, samples=4)
    moved = truth.clone()
    moved[:, 1] = 0
    found = displacement_cosines(moved, truth)
    assert int(found.samples) == 3 and float(found.mean) == pytest.approx(1)


def test_what_is_left_of_a_field_has_no_part_along_the_other():
    one, other = fields(8, samples=3), fields(9, samples=3)
    left = without(one, other)
    assert displacement_cosines(left, other).mean.abs() < 1e-6
    assert torch.equal(without(one, torch.zeros_like(one)), one)


def test_plain_values_go_through_json():
    import json

    truth = fields(10, samples=3)
    again = json.loads(json.dumps(fidelity(truth, -truth, truth).plain()))
    assert again["odd"]["mean"] == [[pytest.approx(1)]] and again["none"] is None


def test_wrong_shapes_and_numbers_are_refused():
    with pytest.raises(ValueError, match="of the same samples"):
        displacement_cosines(fields(0, samples=3), fields(0, samples=4))
    broken = fields(0)
    broken[0, 0, 0, 0, 0] = math.nan
    with pytest.raises(ValueError, match="expected finite displacements"):
        displacement_cosines(broken, fields(0))
