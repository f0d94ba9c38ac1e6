import h5py
import numpy as np
import pytest
import torch
from PIL import Image

from eqflow.data import DatasetError, PicturesError, Recipe, Snapshots, generate, read_pictures

VALUES = np.random.default_rng(0).random((5, 2, 8, 9)).astype("float32")


def test_arrays(tmp_path):
    np.save(tmp_path / "both.npy", VALUES)
    np.save(tmp_path / "one.npy", VALUES[:, 0])
    np.savez(tmp_path / "named.npz", prey=VALUES[:, 0], hunters=VALUES[:, 1])
    np.save(tmp_path / "double.npy", VALUES.astype("float64"))
    np.save(tmp_path / "half.npy", VALUES.astype("float16"))
    both = read_pictures([tmp_path / "both.npy"])
    assert torch.equal(both.values, torch.from_numpy(VALUES)) and both.names == ("u", "v") and both.dt is None
    assert torch.equal(read_pictures([tmp_path / "one.npy"]).values, both.values[:, :1])
    named = read_pictures([tmp_path / "named.npz"])
    assert torch.equal(named.values, both.values) and named.names == ("prey", "hunters")
    assert torch.equal(read_pictures([tmp_path / "double.npy"]).values, both.values)
    half = read_pictures([tmp_path / "half.npy"])
    assert half.values.dtype == torch.float32 and "float16 keeps 3 digits" in half.notes[0]
    twice = read_pictures([tmp_path / "both.npy", tmp_path / "both.npy"])
    assert torch.equal(twice.values, torch.cat([both.values] * 2))


def test_hdf5(tmp_path):
    with h5py.File(tmp_path / "array.h5", "w") as file:
        file["pictures"] = VALUES
        file["time"] = np.arange(5.0)
    assert torch.equal(read_pictures([tmp_path / "array.h5"]).values, torch.from_numpy(VALUES))
    with h5py.File(tmp_path / "fields.hdf5", "w") as file:
        group = file.create_group("t0_fields")
        group.attrs["field_names"] = ["c", "d"]
        for place, name in enumerate("cd"):
            group[name] = np.stack([VALUES[:, place] - 1, VALUES[:, place]], 1)
    found = read_pictures([tmp_path / "fields.hdf5"])
    assert torch.equal(found.values, torch.from_numpy(VALUES)) and found.names == ("c", "d")


def test_a_dataset_says_how_it_was_made(tmp_path):
    generate(Recipe.from_preset("wave", samples=3, size=32, steps=50, dt=0.5, stencil="9-point"), tmp_path / "wave")
    found = read_pictures([tmp_path / "wave"])
    assert torch.equal(found.values, Snapshots(tmp_path / "wave").load())
    assert found[3:] == (0.5, 1.0, "9-point") and found.names == ("u", "v")
    sweep = Recipe.from_preset("wave", samples=2, size=32, steps=5, sweep={"feed": [0.01, 0.02]})
    generate(sweep, tmp_path / "sweep")
    with pytest.raises(PicturesError, match=r"one system, but .* is a sweep"):
        read_pictures([tmp_path / "sweep"])
    next((tmp_path / "wave").rglob("*.hdf5")).unlink()
    with pytest.raises(DatasetError, match="is not complete"):
        read_pictures([tmp_path / "wave"])


def test_images(tmp_path):
    bytes_ = np.random.default_rng(1).integers(0, 256, (3, 6, 7, 3)).astype("uint8")
    for number, picture in enumerate(bytes_):
        Image.fromarray(picture).save(tmp_path / f"{number}.png")
    (tmp_path / "notes.txt").write_text("not a picture")
    found = read_pictures([tmp_path])
    torch.testing.assert_close(found.values, torch.from_numpy(np.moveaxis(bytes_, -1, 1) / np.float32(255)))
    assert found.names == ("u", "v", "w") and "rounded levels" in found.notes[0]
    Image.fromarray(np.repeat(bytes_[0, :, :, :1], 3, 2)).save(tmp_path / "grey.png")
    assert read_pictures([tmp_path / "grey.png"]).values.shape == (1, 1, 6, 7)
    Image.fromarray(bytes_[0, :, :, 0] * np.uint16(257)).save(tmp_path / "deep.png")
    deep = read_pictures([tmp_path / "deep.png"])
    torch.testing.assert_close(deep.values[0, 0], torch.from_numpy(bytes_[0, :, :, 0] / np.float32(255)))
    assert not deep.notes
    frames = [Image.fromarray(frame) for frame in VALUES[:, 0]]
    frames[0].save(tmp_path / "stack.tif", save_all=True, append_images=frames[1:])
    assert torch.equal(read_pictures([tmp_path / "stack.tif"]).values[:, 0], torch.from_numpy(VALUES[:, 0]))


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("a.npy", np.ones((4, 4)), r"\[pictures, height, width\] .* got float64 \[4, 4\]"),
        ("a.npy", np.ones((4, 4, 4), "complex64"), "got complex64"),
        ("a.npy", np.full((4, 4, 4), np.nan), "expected finite pictures"),
        ("a.npy", np.full((4, 4, 4), 1e300), "beyond float32"),
        ("a.npy", np.ones((4, 8, 8, 2)), r"channels before height and width .*np.moveaxis"),
        ("a.npy", None, "cannot read pictures from .*magic string"),
        ("a.npz", {}, "expected an array in .*a.npz"),
        ("a.npz", {"u": np.ones((4, 5, 5)), "v": np.ones((4, 5, 6))}, r"channels of one shape.*v \[4, 5, 6\]"),
        ("a.csv", None, "expected pictures in .npy.* or a dataset, got"),
        ("a.png", None, "cannot read pictures from .*a.png"),
    ],
)
def test_what_holds_no_pictures_is_refused(tmp_path, name, content, message):
    path = tmp_path / name
    if content is None:
        path.write_text("1,2")
    elif isinstance(content, dict):
        np.savez(path, **content)
    else:
        np.save(path, content)
    with pytest.raises(PicturesError, match=message):
        read_pictures([path])


def test_files_of_other_channels_or_another_origin_are_not_put_together(tmp_path):
    np.savez(tmp_path / "uv.npz", u=VALUES[:, 0], v=VALUES[:, 1])
    np.savez(tmp_path / "vu.npz", v=VALUES[:, 1], u=VALUES[:, 0])
    with pytest.raises(PicturesError, match=r"channels u, v as in .*uv.npz, got v, u in .*vu.npz"):
        read_pictures([tmp_path / "uv.npz", tmp_path / "vu.npz"])
    for name, dt in (("a", 0.5), ("b", 1.0)):
        generate(Recipe.from_preset("wave", samples=2, size=32, steps=5, dt=dt), tmp_path / name)
    with pytest.raises(PicturesError, match=r"made in one way, but .*b is not made as .*a"):
        read_pictures([tmp_path / "a", tmp_path / "b"])


def test_opacity_is_no_channel(tmp_path):
    both = np.random.default_rng(2).integers(0, 256, (6, 7, 2)).astype("uint8")
    Image.merge("LA", [Image.fromarray(both[..., k]) for k in range(2)]).save(tmp_path / "grey.png")
    found = read_pictures([tmp_path / "grey.png"])
    torch.testing.assert_close(found.values[0, 0], torch.from_numpy(both[..., 0] / np.float32(255)))
    assert found.values.shape == (1, 1, 6, 7)


def test_places_without_pictures(tmp_path):
    with pytest.raises(PicturesError, match="no such file"):
        read_pictures([tmp_path / "none.npy"])
    with pytest.raises(PicturesError, match="found neither"):
        read_pictures([tmp_path])
    with pytest.raises(PicturesError, match="at least one file"):
        read_pictures([])
    np.save(tmp_path / "a.npy", np.ones((2, 1, 4, 4)))
    np.save(tmp_path / "b.npy", np.ones((2, 1, 4, 5)))
    with pytest.raises(PicturesError, match=r"b.npy has 1 channel of 4 x 5 and the first 1 channel of 4 x 4"):
        read_pictures([tmp_path / "a.npy", tmp_path / "b.npy"])
