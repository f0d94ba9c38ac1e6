import math

import pytest
import torch

from eqflow.score import ContinuousSchedule, CosineSchedule, LinearSchedule, Schedule

SCHEDULES = {"continuous": ContinuousSchedule(), "cosine": CosineSchedule(), "linear": LinearSchedule()}


@pytest.mark.parametrize(
    "schedule, tau, alpha",
    [
        (ContinuousSchedule(), 0.2, 0.94999),
        (ContinuousSchedule(), 1.0, 0.30044),
        (CosineSchedule(), 0.1, 0.979),
        (CosineSchedule(), 0.2, 0.911),
        (LinearSchedule(), 0.1, 0.94478),
        (LinearSchedule(), 0.09, 0.9545),
        (LinearSchedule(), 0.11, 0.9342),
    ],
)
def test_published_values(schedule, tau, alpha):
    digits = len(str(alpha)) - 2
    assert round(schedule.alpha(tau), digits) == alpha
    assert schedule.sqrt_alpha(tau) == math.sqrt(schedule.alpha(tau))


@pytest.mark.parametrize("name", SCHEDULES)
def test_alpha_falls_and_the_inverse_inverts(name):
    schedule = SCHEDULES[name]
    assert isinstance(schedule, Schedule)
    tau = torch.linspace(0, 1, 1001, dtype=torch.float64)
    alpha = schedule.alpha(tau)
    assert alpha.diff().max() <= 0
    assert 0 < alpha[-1] < alpha[0] <= 1
    back = schedule.tau(alpha)
    torch.testing.assert_close(schedule.alpha(back), alpha, rtol=1e-12, atol=0)
    # Within half a level of the time it came from.
    assert (back - tau).abs().max() <= (1e-12 if name == "continuous" else 0.0051)


def test_the_continuous_schedule_keeps_the_digits_of_small_times():
    schedule = ContinuousSchedule()
    for tau in (1e-3, 1e-6, 1e-9):
        # alpha itself has lost digits near 1: its rounding moves tau by epsilon / b0.
        assert schedule.tau(schedule.alpha(tau)) == pytest.approx(tau, rel=1e-12, abs=2e-14)


@pytest.mark.parametrize("name", ["cosine", "linear"])
def test_levels_begin_on_time_in_both_precisions(name):
    schedule = SCHEDULES[name]
    begins = torch.arange(100, dtype=torch.float64) / schedule.stretches
    torch.testing.assert_close(schedule.alpha(begins), schedule.table, rtol=0, atol=0)
    torch.testing.assert_close(schedule.alpha(begins.float()), schedule.table.float(), rtol=0, atol=0)


@pytest.mark.parametrize("name", SCHEDULES)
def test_tensors_keep_type_and_shape(name):
    schedule = SCHEDULES[name]
    for method in (schedule.alpha, schedule.sqrt_alpha, schedule.tau):
        assert method(torch.full((2, 3), 0.5)).shape == (2, 3)
        assert method(torch.tensor(0.5)).dtype == torch.float32
        assert isinstance(method(0.5), float)
