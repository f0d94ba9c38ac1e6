import pytest
import torch

from eqflow.data import DatasetError, read_tensors, save_tensors


def test_tensors_come_back_and_the_bytes_are_the_same(tmp_path):
    tensors = {"b": torch.randn(3, 4).double().T, "a": torch.arange(5)}
    about = {"names": ["x", "ä"], "alpha": 0.95, "shape": {"hidden": [2, 3]}}
    save_tensors(tmp_path / "new" / "one.safetensors", tensors, about)
    found, note = read_tensors(tmp_path / "new" / "one.safetensors")
    assert note == about and found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)
    shuffled = {"a": tensors["a"], "b": tensors["b"]}
    save_tensors(tmp_path / "two.safetensors", shuffled, dict(reversed(about.items())))
    assert (tmp_path / "two.safetensors").read_bytes() == (tmp_path / "new" / "one.safetensors").read_bytes()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["one.safetensors"]


def test_a_damaged_file_of_tensors(tmp_path):
    path = tmp_path / "one.safetensors"
    save_tensors(path, {"a": torch.ones(100)}, {})
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(DatasetError, match="damaged"):
        read_tensors(path)
    with pytest.raises(DatasetError, match="cannot read"):
        read_tensors(tmp_path / "none.safetensors")
