import math

import pytest
import torch

from eqflow import ops
from eqflow.dynamics import similarity_as_released, skew
from eqflow.score import PatternDenoiser, PatternShape


def fields():
    return ops.normal(4, 2 * 12 * 12, seed=1).view(4, 2, 12, 12)


def similarity(change, kernel=None, **options):
    score = PatternDenoiser(PatternShape(width=4, dilations=(1,)), [0.0, 0.0], [1.0, 0.7]).at()
    kernel = skew.rotation(5.0) if kernel is None else kernel
    return similarity_as_released(fields(), change, score, kernel, steps=20, **options)


def turned():
    start = fields()
    return torch.stack([-start[:, 1], start[:, 0]], 1)


def test_a_truth_that_turns_is_found_whatever_its_sign_and_the_length_of_the_kernel():
    found = similarity(turned())
    assert found.shape == (4,) and (found > 0.2).all() and (found <= 1).all()
    # The larger of both signs: turning the truth round changes nothing but which of the two it is.
    assert torch.equal(found, similarity(-turned()))
    torch.testing.assert_close(found, similarity(turned(), skew.rotation(0.1)), rtol=1e-4, atol=1e-5)


def test_chance_alone_is_not_zero():
    """The larger of two |cos| has a mean above that of one: why this number has no place in a test."""
    found = similarity(ops.normal(4, 2 * 12 * 12, seed=7).view(4, 2, 12, 12))
    assert (found > 0).all() and (found < 6 / math.sqrt(288)).all()


def test_another_shape_is_refused():
    with pytest.raises(ValueError, match="expected a change of the shape of the starts"):
        similarity(turned()[:2])
