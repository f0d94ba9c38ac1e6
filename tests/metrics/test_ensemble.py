import math

import pytest
import torch

from eqflow.metrics import GaussianField, compare_ensembles, spectrum_log_ratio, two_point_correlation


def field(scale=0.5, size=(32, 32)):
    """Gaussian fields whose power falls off around a wave number of `scale` radians a cell."""
    return GaussianField.radial(lambda k: (-(k / scale).square()).exp(), torch.eye(2), size)


def test_one_law_has_one_spectrum_and_another_has_not():
    first, second = field().sample(200, seed=0), field().sample(200, seed=1)
    assert (spectrum_log_ratio(first, second, waves=5) < 0.1).all()
    assert (spectrum_log_ratio(field(0.7).sample(200, seed=1), second, waves=5) > 0.3).all()
    torch.testing.assert_close(
        spectrum_log_ratio(3 * first, first, waves=5), torch.full((2,), 2 * math.log(3), dtype=torch.float64)
    )


def test_the_correlation_is_the_transform_of_the_spectrum():
    """A Gaussian spectrum exp(-(k / scale)^2) has the correlation exp(-(scale r)^2 / 4)."""
    found = two_point_correlation(field().sample(400, seed=2))
    distance = torch.arange(9, dtype=torch.float64)
    assert found.shape == (2, 17) and (found[:, 0] == 1).all()
    torch.testing.assert_close(found[0, :9], (-(0.5 * distance).square() / 4).exp(), rtol=0, atol=0.05)


def test_a_report_sees_mean_spread_histogram_and_death():
    data = field().sample(64, seed=3)
    same = compare_ensembles(field().sample(64, seed=4), data)
    assert (same.histogram < 0.1).all() and (same.correlation < 0.05).all() and same.dead == 0
    moved = compare_ensembles(2 * data + 1, data)
    assert moved.mean - moved.data_mean == pytest.approx(torch.ones(2, dtype=torch.float64), abs=0.2)
    assert (moved.deviation / moved.data_deviation).tolist() == pytest.approx([2, 2], rel=1e-6)
    torch.testing.assert_close(compare_ensembles(data + 1, data).histogram, torch.ones(2, dtype=torch.float64))
    flat = data.clone()
    flat[5, 1] = 0.3
    assert compare_ensembles(flat, data).dead == 1
    assert isinstance(moved.plain()["spectrum"], list)


def test_errors_are_those_of_few_samples():
    """Against the scatter of many ensembles of one law, beside data of that law."""
    data, count = field(2.0).sample(64, seed=20), 8
    found = [compare_ensembles(part, data) for part in field(2.0).sample(40 * count, seed=21).split(count)]
    for name in ("mean", "deviation"):
        scatter = torch.stack([getattr(one, name) for one in found]).std(0)
        errors = torch.stack([getattr(one, f"{name}_error") for one in found]).square().mean(0).sqrt()
        torch.testing.assert_close(errors, scatter, rtol=0.35, atol=0)
    spectrum, chance = (torch.stack([getattr(one, name) for one in found]) for name in ("spectrum", "spectrum_chance"))
    torch.testing.assert_close(chance.mean(0), spectrum.mean(0), rtol=0.15, atol=0)


def test_the_error_of_a_spectrum_that_is_another():
    """Too much power up to the ninth wave number, too little beyond; and some samples have more of all than others."""
    data, other = field(2.0).sample(64, seed=22), 2 * field(1.2).sample(40 * 8, seed=23)
    other *= (0.2 * torch.randn(40 * 8, 1, 1, 1, generator=torch.Generator().manual_seed(0))).exp()
    found = [compare_ensembles(part, data) for part in other.split(8)]
    spectrum, errors = (torch.stack([getattr(one, name) for one in found]) for name in ("spectrum", "spectrum_error"))
    # The data is the same for all, so their scatter is but that of the eight fields.
    torch.testing.assert_close(errors.mean(0), spectrum.std(0), rtol=0.35, atol=0)
    one = compare_ensembles(data[:1], data)
    assert one.spectrum_error.isnan().all() and one.mean_error.isnan().all() and one.spectrum.isfinite().all()


def test_an_ensemble_that_died_is_told_from_one_that_is_wrong():
    data = field().sample(8, seed=24)
    flat = torch.tensor([0.3, -0.7]).view(2, 1, 1).expand(5, 2, 32, 32)
    found = compare_ensembles(flat, data)
    assert found.dead == 5 and (found.spectrum > 20).all() and found.correlation.isnan().all()
    assert two_point_correlation(flat).isnan().all() and found.deviation.tolist() == [0, 0]
    rounded = flat * (1 + 1e-7 * torch.randn(flat.shape, generator=torch.Generator().manual_seed(0)))
    assert two_point_correlation(rounded).isnan().all()
    shallow = 1.5e-3 * data / data[:, 1].flatten(1).std(1, correction=0).view(-1, 1, 1, 1)
    assert compare_ensembles(shallow, data).dead == 0 and compare_ensembles(shallow, data, dead_below=2e-3).dead == 8


def test_grids_that_are_no_squares():
    data = field(size=(24, 40)).sample(16, seed=5)
    assert compare_ensembles(data, data).spectrum.tolist() == [0, 0]
    assert two_point_correlation(data).shape == (2, 13)


def test_wrong_fields_are_refused():
    data = field().sample(2, seed=6)
    with pytest.raises(ValueError, match="of the data's grid"):
        compare_ensembles(data[..., :16], data)
    broken = data.clone()
    broken[0, 0, 0, 0] = math.inf
    with pytest.raises(ValueError, match="expected finite fields"):
        compare_ensembles(broken, data)
    with pytest.raises(ValueError, match="expected finite data"):
        compare_ensembles(data, broken)
