import math

import pytest
import torch

from eqflow import ops
from eqflow.metrics import radial_spectrum


@pytest.mark.parametrize("shape", [(16, 16), (12, 20), (15, 9)])
def test_the_power_of_all_waves_is_the_variance(shape):
    pictures = ops.normal(3, 2 * shape[0] * shape[1], seed=1).view(3, 2, *shape) + 5
    variance = pictures.double().flatten(2).var(2, correction=0)
    torch.testing.assert_close(radial_spectrum(pictures).sum(2), variance, rtol=1e-10, atol=0)


def test_a_wave_stands_at_its_length_whatever_its_direction():
    rows = torch.arange(30, dtype=torch.float64)[:, None]
    columns = torch.arange(30, dtype=torch.float64)
    wave = (2 * math.pi * (3 * rows + 4 * columns) / 30 + 0.3).cos()
    spectrum = radial_spectrum(wave[None, None])[0, 0]
    assert int(spectrum.argmax()) == 5 - 1 and float(spectrum[4]) == pytest.approx(0.5, rel=1e-10)
    torch.testing.assert_close(spectrum, radial_spectrum(wave.roll((3, 7), (0, 1))[None, None])[0, 0])
