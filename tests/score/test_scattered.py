"""A training on scattered creatures: fields that depend on their number alone, and what is asked of half a creature."""

import pytest
import torch

from eqflow.score import PatternShape, PatternTraining, Scattered, about_score, read_score, train_pattern

SIDE = 16


def disc() -> torch.Tensor:
    axis = torch.arange(SIDE) - (SIDE - 1) / 2
    alpha = (torch.hypot(axis[:, None], axis) < 6).float()
    return torch.stack([-alpha, alpha])[None]


def made(**more) -> Scattered:
    return Scattered(disc(), (32, 32), held_out=3, seed=4, background=[1.0], **more)


def test_fields_depend_on_their_number_alone():
    fields = made()
    assert fields.apart.shape == (3, 1, 32, 32)
    assert torch.equal(fields.draw(range(5))[3:], fields.draw(range(3, 5)))
    assert not torch.equal(fields.draw(range(3)), fields.apart)
    clean, given = fields.pairs(range(6))
    assert torch.equal(fields.pairs(range(4, 6))[1], given[4:])
    assert not torch.equal(clean, given)


def test_a_faded_creature_is_asked_for_whole_or_not_at_all():
    clean, given = made(fading=0.5, threshold=0.5, coverage=0.05).pairs(range(60))
    whole = float((1 - made(fading=0.0, coverage=0.05).pairs(range(1))[0]).sum())
    there, left = (1 - clean).sum((1, 2, 3)) / whole, (1 - given).square().sum((1, 2, 3))
    assert torch.logical_or(there < 1e-3, (there - 1).abs() < 0.03).all() and 0.1 < (there > 0.5).float().mean() < 0.9
    gone = (given - clean).square().sum((1, 2, 3))
    assert (gone[there > 0.5] <= left[there > 0.5]).all()  # nearer to the whole one than to none
    full = 4 * whole / 2
    assert (left[there < 0.5] < full).all()


def test_without_fading_pairs_are_the_same():
    clean, given = made(fading=0.0).pairs(range(2))
    assert torch.equal(clean, given)


def test_a_training_goes_on_to_the_same_bits_and_its_file_scatters(tmp_path):
    from eqflow.data import save_tensors

    shape, training = PatternShape(1, width=4, dilations=(1,), alpha=0.25), PatternTraining(steps=6, every=3)
    states = []
    whole = train_pattern(made(), shape, training, save=states.append)
    again = train_pattern(made(), shape, training, state=states[0])
    for name, value in whole.denoiser.state_dict().items():
        assert torch.equal(value, again.denoiser.state_dict()[name])
    with pytest.raises(ValueError, match="another"):
        train_pattern(made(fading=0.4), shape, training, state=states[0])
    scatter = {"background": [1.0], "coverage": 0.1, "overlap": 0.05, "scale": [1.0, 1.0], "oversample": 2}
    options = {"offset": [0.5], "factor": [0.5], "size": (32, 32), "system": None, "apart": made().apart}
    tensors, about = about_score(
        whole.denoiser, name="disc", channels=["grey"], pictures=disc(), scatter=scatter, **options
    )
    save_tensors(tmp_path / "score.safetensors", tensors, about)
    stored = read_score(tmp_path / "score.safetensors")
    fields = stored.fields(range(2), seed=1, size=(40, 48))
    assert fields.shape == (2, 1, 40, 48) and stored.starts is None
    assert torch.equal(fields[1:], stored.fields(range(1, 2), seed=1, size=(40, 48)))
