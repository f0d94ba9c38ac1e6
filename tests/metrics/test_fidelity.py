import math

import pytest
import torch

from eqflow.metrics import displacement_cosines, fidelity, kernel_headroom
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


def test_what_cannot_be_known_is_nan_beside_its_count():
    truth = fields(11, samples=2)
    moved = truth.clone()
    moved[:, 1] = 0
    one = displacement_cosines(moved, truth)
    assert int(one.samples) == 1 and float(one.mean) == pytest.approx(1)
    assert one.error.isnan() and one.deviation.isnan()
    nothing = displacement_cosines(0 * truth, truth)
    assert int(nothing.samples) == 0 and nothing.mean.isnan() and nothing.error.isnan()


def test_another_system_that_moves_as_the_own_one_does_has_nothing_apart():
    truth = fields(12, samples=4)
    rounded = truth * (1 + 1e-7 * fields(13, samples=4))
    found = fidelity(truth, -truth, truth, other_truths={"twin": rounded, "double": 2 * truth})
    for name in ("twin", "double"):
        assert float(found.other_truths[name].mean) == pytest.approx(1)
        assert int(found.other_truths_apart[name].samples) == 0


def test_the_sign_of_the_odd_cosine_is_that_of_the_kernel():
    truth, shared = fields(14), fields(15)
    there, back = fidelity(shared + truth, shared - truth, truth), fidelity(shared - truth, shared + truth, truth)
    assert float(there.odd.mean) == pytest.approx(1) and float(back.odd.mean) == pytest.approx(-1)
    assert torch.equal(there.even.mean, back.even.mean)


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


def convolved(kernel, features):
    radius = kernel.shape[-1] // 2
    return torch.nn.functional.conv2d(torch.nn.functional.pad(features, [radius] * 4, mode="circular"), kernel)


def radial(centre, edge, corner):
    return torch.tensor([[corner, edge, corner], [edge, centre, edge], [corner, edge, corner]])


def test_a_planted_kernel_is_found_and_so_is_what_it_explains():
    features = fields(20)[0]
    kernel = torch.zeros(2, 2, 3, 3)
    kernel[1, 0] = radial(1.0, 0.2, -0.75)
    kernel[0, 1] = -kernel[1, 0]
    signal = convolved(kernel, features)
    truth = signal + 2 * signal.std() * fields(21)[0]
    found = kernel_headroom(features, truth)
    expected = 1 / math.sqrt(5)
    assert abs(float(found.cosines.mean) - expected) < 4 * float(found.cosines.error)
    assert int(found.cosines.samples) == 32
    torch.testing.assert_close(found.kernel, kernel.double(), rtol=0, atol=0.15)
    assert torch.equal(found.kernel[0, 1], -found.kernel[1, 0]) and not found.kernel[0, 0].any()
    assert float(kernel_headroom(features, truth, 0).cosines.mean) < float(found.cosines.mean)


def test_a_full_kernel_can_do_what_a_skew_one_cannot():
    features = fields(22, samples=8)[0]
    kernel = torch.tensor([[0.5, 1.0], [2.0, -1.0]])[:, :, None, None]
    truth = convolved(kernel, features)
    found = kernel_headroom(features, truth, 0, skew=False)
    torch.testing.assert_close(found.kernel, kernel.double(), rtol=1e-5, atol=1e-5)
    assert float(found.cosines.mean) == pytest.approx(1)
    assert float(kernel_headroom(features, truth, 0).cosines.mean) < 0.5
    assert kernel_headroom(features[:, :1], features[:, :1], 2, skew=False).kernel.shape == (1, 1, 5, 5)


def test_what_is_fitted_is_not_what_is_tested():
    """24 weights on chance: the other half knows nothing of it."""
    found = kernel_headroom(fields(23)[0], fields(24)[0], 2, skew=False).cosines
    assert abs(float(found.mean)) < 4 * float(found.error)


def test_headroom_refuses_what_it_cannot_fit():
    features = fields(25, samples=4)[0]
    with pytest.raises(ValueError, match="of two or more samples"):
        kernel_headroom(features, features[:3])
    with pytest.raises(ValueError, match="two channels for a skew kernel"):
        kernel_headroom(features[:, :1], features[:, :1])
    with pytest.raises(ValueError, match="radius from 0 up"):
        kernel_headroom(features, features, -1)
    with pytest.raises(ValueError, match="expected finite features"):
        kernel_headroom(features * math.inf, features)
