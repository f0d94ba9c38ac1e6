import h5py
import pytest
import torch

from eqflow.data import DatasetError
from eqflow.data.checkpoint import Checkpoint
from eqflow.data.frames import read_frames
from eqflow.data.recorder import Recorder
from eqflow.dynamics import rollout


def record(path, state, steps=20, every=4, **more):
    with Recorder(path, state, steps=steps, every=every, dt=0.1, **more) as recorder:
        return rollout(state, lambda x: -x, steps, dt=0.1, observers=[recorder])


@pytest.mark.parametrize("shape", [(5, 3), (2, 1, 4, 6), (3, 2, 7, 5), (1, 28, 3, 3)], ids=str)
def test_frames_are_the_states_and_the_layout_is_the_wells(tmp_path, shape):
    state = torch.randn(shape)
    result = record(tmp_path / "run.hdf5", state, first_sample=7)
    frames = read_frames(tmp_path / "run.hdf5")
    assert frames.shape == (shape[0], 6, *shape[1:])
    assert torch.equal(frames[:, 0], state) and torch.equal(frames[:, -1], result.state)
    assert torch.equal(frames[:, 2], rollout(state, lambda x: -x, 8, dt=0.1).state)
    with h5py.File(tmp_path / "run.hdf5") as file:
        assert file.attrs["n_trajectories"] == shape[0] and file.attrs["n_spatial_dims"] == max(1, len(shape) - 2)
        assert list(file["scalars/sample"]) == list(range(7, 7 + shape[0]))
        assert file["dimensions/time"][:] == pytest.approx([0, 0.4, 0.8, 1.2, 1.6, 2.0])
        assert file["t0_fields"].attrs["field_names"][0] == "A" and file["t0_fields/A"].attrs["time_varying"]


def test_many_frames_go_to_their_places(tmp_path):
    record(tmp_path / "run.hdf5", torch.ones(2, 3), steps=300, every=1)
    decay = float(rollout(torch.ones(1, 1), lambda x: -x, 1, dt=0.1).state)
    frames = read_frames(tmp_path / "run.hdf5")[0, :, 0].double()
    torch.testing.assert_close(
        frames[1:] / frames[:-1], torch.full((300,), decay, dtype=torch.float64), rtol=1e-5, atol=0
    )


def test_an_unfinished_file_has_no_name(tmp_path):
    state = torch.ones(2, 2)
    with Recorder(tmp_path / "run.hdf5", state, steps=20, every=4, dt=0.1) as recorder:
        rollout(state, lambda x: -x, 10, dt=0.1, observers=[recorder])
    with pytest.raises(DatasetError, match="not finished: run the same command again"):
        read_frames(tmp_path / "run.hdf5")
    with pytest.raises(DatasetError, match="is not there"):
        read_frames(tmp_path / "other.hdf5")


def test_two_writers_are_kept_apart(tmp_path):
    state = torch.ones(2, 2)
    with (
        Recorder(tmp_path / "run.hdf5", state, steps=20, every=4, dt=0.1),
        pytest.raises(DatasetError, match="another process writes"),
    ):
        Recorder(tmp_path / "run.hdf5", state, steps=20, every=4, dt=0.1)


def test_an_error_of_the_disk_reaches_the_rollout(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    state = torch.ones(2, 2)
    recorder = Recorder(tmp_path / "run.hdf5", state, steps=400, every=1, dt=0.1)
    monkeypatch.setattr("eqflow.data.recorder._write_at", full)
    with pytest.raises(DatasetError, match="the disk is full: free some space"), recorder:
        rollout(state, lambda x: -x, 400, dt=0.1, observers=[recorder])
    assert not (tmp_path / "run.hdf5").exists() and not list(tmp_path.glob("*.lock"))


def test_a_recorder_of_another_rollout_is_refused(tmp_path):
    with pytest.raises(ValueError, match="expected every to divide steps = 20, got 3"):
        Recorder(tmp_path / "run.hdf5", torch.ones(2, 2), steps=20, every=3, dt=0.1)
    with (
        Recorder(tmp_path / "run.hdf5", torch.ones(2, 2), steps=20, every=4, dt=0.1) as recorder,
        pytest.raises(ValueError, match="expected 6 frames of shape"),
    ):
        rollout(torch.ones(3, 2), lambda x: -x, 20, dt=0.1, observers=[recorder])


def test_a_checkpoint_is_whole_or_not_there(tmp_path, monkeypatch):
    store = Checkpoint(tmp_path / "new" / "run.pt")
    assert store.load() is None
    store.save({"step": 1, "state": torch.arange(3)})

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(DatasetError, match=r"the disk is full"):
        store.save({"step": 2})
    assert store.load()["step"] == 1 and [path.name for path in store.path.parent.iterdir()] == ["run.pt"]


def test_a_damaged_or_foreign_checkpoint_is_refused(tmp_path):
    for content in (b"", b"nonsense", b"PK\x03\x04broken"):
        (tmp_path / "run.pt").write_bytes(content)
        with pytest.raises(DatasetError, match=r"is not a checkpoint that can be read .* delete it to start over"):
            Checkpoint(tmp_path / "run.pt").load()
    torch.save({"state": Checkpoint}, tmp_path / "run.pt")  # a class: would run code
    with pytest.raises(DatasetError, match="is not a checkpoint"):
        Checkpoint(tmp_path / "run.pt").load()
