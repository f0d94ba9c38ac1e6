"""A denoiser for patterns on data whose best denoiser is known: it comes to the best of its field of view from above.

The best of a field of view is a linear filter here, and the best of all is better still: the distance between the two
is what a local network cannot have, and no fault of its training.
"""

import pytest
import torch

from eqflow.metrics import GaussianField, denoising_error
from eqflow.score import PatternDenoiser, PatternShape, PatternTraining, Stored, train_pattern

NEAR = PatternShape(width=16, dilations=(1,), first=5)  # sees 7 x 7 pixels
FAR = PatternShape(width=16, dilations=(1, 1), first=5)  # 9 x 9


@pytest.fixture(scope="module")
def known():
    """Two sources, one of long waves and one rough, mixed into two channels."""

    def profile(wave):
        return torch.stack([20 * (-3 * wave.square()).exp(), 2 / (1 + (3 * wave) ** 4)])

    return GaussianField.radial(profile, [[1.0, 0.3], [-0.5, 0.6]], (32, 32), mean=[0.2, -0.4])


def judged(known, shape, steps, *, fields, batch=8):
    """Error and standard error of a trained denoiser over the best of its field of view, channel by channel."""
    data = Stored(known.sample(fields, seed=1), held_out=16, seed=0)
    training = PatternTraining(steps=steps, batch=batch, every=steps, warm_up=50, precision="float32")
    denoiser = train_pattern(data, shape, training).denoiser
    found = denoising_error(denoiser, known.sample(512, seed=2), denoiser.sigma)
    best = known.best_local_error(denoiser.sigma, shape.radius)
    return found.error / best, found.standard_error / best


def test_a_short_training_comes_near_the_best_of_its_field_of_view(known):
    ratio, error = judged(known, NEAR, 400, fields=512)
    assert (ratio < 1.25).all() and (ratio > 1 - 3 * error).all()


@pytest.mark.slow
@pytest.mark.parametrize("shape", [NEAR, FAR], ids=["7 pixels", "9 pixels"])
def test_training_reaches_the_best_of_its_field_of_view_and_never_goes_below(known, shape):
    ratio, error = judged(known, shape, 2500, fields=2048)
    assert (error < 0.01).all()
    assert (ratio < 1.05).all() and (ratio > 1 - 3 * error).all()
    sigma = PatternDenoiser(shape, [0.0, 0.0], [1.0, 1.0]).sigma
    wider = known.best_local_error(sigma, shape.radius + 3) / known.best_local_error(sigma, shape.radius)
    assert (wider < 0.99).all() and (ratio - wider > 3 * error).any()  # which no network of this field of view reaches
