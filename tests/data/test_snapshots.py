import dataclasses
import os
import pickle

import pytest
import torch
from torch.utils.data import DataLoader

from eqflow.data import DatasetError, Snapshots, generate


@pytest.fixture
def folder(recipe, tmp_path):
    recipe = dataclasses.replace(recipe, feed=(0.018, 0.02))
    generate(recipe, tmp_path / "a")
    return tmp_path / "a"


def test_frames(folder):
    whole = Snapshots(folder, frames="all").load()
    assert whole.shape == (9, 3, 2, 24, 31) and whole.dtype == torch.float32
    for frames, index in (("last", 2), (0, 0), (1, 1), (-1, 2), (-3, 0)):
        data = Snapshots(folder, frames=frames)
        assert torch.equal(data.load(), whole[:, index])
        assert torch.equal(data[5], whole[5, index])
    data = Snapshots(folder, frames="all")
    assert torch.equal(data[-1], whole[8]) and len(data) == 9
    for wrong in (3, -4, "first", 1.0):
        with pytest.raises(ValueError, match="expected frames 'last', 'all' or an index below 3"):
            Snapshots(folder, frames=wrong)
    with pytest.raises(IndexError, match="below 9, got 9"):
        data[9]


def test_normalisation(folder):
    plain, data = Snapshots(folder, frames="all"), Snapshots(folder, normalize=True, frames="all")
    whole = data.load()
    assert whole.mean((0, 1, 3, 4)).abs().max() < 1e-5
    torch.testing.assert_close(whole.std((0, 1, 3, 4), correction=0), torch.ones(2), rtol=1e-5, atol=0)
    assert data.mean.shape == data.std.shape == (2, 1, 1)
    torch.testing.assert_close(whole * data.std + data.mean, plain.load(), rtol=0, atol=1e-6)
    assert torch.equal(data[3], whole[3])


def test_parameters(folder):
    parameters = Snapshots(folder).parameters
    assert parameters.shape == (9, 4)
    assert parameters[:, 0].tolist() == [0.018, 0.02] * 4 + [0.018]


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_data_loader_workers(folder):
    data = Snapshots(folder)
    whole = data.load()  # opens the files here, before the workers are forked
    for workers in (0, 2):
        batches = list(DataLoader(data, batch_size=2, num_workers=workers))
        assert torch.equal(torch.cat(batches), whole)


def test_copy_for_another_process(folder):
    data = Snapshots(folder)
    data[0]
    assert torch.equal(pickle.loads(pickle.dumps(data))[8], data[8])


def test_many_shards_do_not_keep_many_files_open(folder, monkeypatch):
    monkeypatch.setattr("eqflow.data.snapshots._MOST_OPEN", 1)
    data = Snapshots(folder)
    whole = data.load()
    assert torch.equal(torch.stack([data[i] for i in range(9)]), whole)
    assert len(data._files) == 1


def test_missing_and_incomplete(folder, tmp_path):
    with pytest.raises(DatasetError, match="is not an eqflow dataset"):
        Snapshots(tmp_path / "nowhere")
    (folder / "data" / "train" / "wave_00001.hdf5").unlink()
    with pytest.raises(DatasetError, match="not complete, 1 of 3 shards are missing"):
        Snapshots(folder)


def test_damaged_shard(folder):
    path = folder / "data" / "train" / "wave_00001.hdf5"
    path.write_bytes(bytes(path.stat().st_size))
    data = Snapshots(folder)
    assert data[0].isfinite().all()
    with pytest.raises(DatasetError, match=r"cannot read .*wave_00001.hdf5.*Delete it and generate"):
        data[4]
    os.truncate(path, 100)
    with pytest.raises(DatasetError, match=r"wave_00001.hdf5 has 100 bytes, but eqflow wrote"):
        Snapshots(folder)
