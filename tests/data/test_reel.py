"""Frames of a world on disk: whole when they have their name, the same after a stop."""

import numpy as np
import pytest
import torch

from eqflow.data import DatasetError
from eqflow.data.reel import Reel, fields


def frame(step: int) -> torch.Tensor:
    return torch.linspace(-1, 1, 3 * 4 * 5).view(1, 3, 4, 5).roll(step) * 1.2


def test_frames_have_their_name_when_all_are_there(tmp_path):
    path = tmp_path / "world.npy"
    reel = Reel(path, 3, (3, 4, 5), every=2)
    for step in (0, 2):
        reel.observe(step, 0.0, frame(step))
    kept = reel.state_dict()
    reel.close()
    assert not path.exists()
    again = Reel(path, 3, (3, 4, 5), every=2)
    again.load_state_dict(kept)
    again.observe(4, 0.0, frame(4))
    again.close()
    found = np.load(path)
    assert found.dtype == np.uint8 and not list(tmp_path.glob(".*"))
    for number, step in enumerate((0, 2, 4)):
        expected = frame(step)[0].clamp(-1, 1).numpy()
        assert np.abs(fields(found[number]) - expected).max() <= 0.5 / 127.5 + 1e-6


def test_another_world_is_refused(tmp_path):
    Reel(tmp_path / "world.npy", 3, (3, 4, 5), every=2).close()
    with pytest.raises(DatasetError, match="belongs to another world"):
        Reel(tmp_path / "world.npy", 4, (3, 4, 5), every=2)
