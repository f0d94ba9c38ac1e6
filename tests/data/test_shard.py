"""The Well's layout, as its documentation and its format checker want it."""

import dataclasses

import h5py
import numpy as np
import pytest

from eqflow.data import Recipe, generate
from eqflow.data.shard import ShardWriter, layout


def folder_of(recipe, path):
    generate(recipe, path)
    return sorted((path / "data" / "train").iterdir())


@pytest.mark.parametrize("every", [None, 20])
def test_layout(recipe, tmp_path, every):
    recipe = dataclasses.replace(recipe, every=every, feed=(0.018, 0.03), seed=77, dx=0.5, diffusion_u=0.04,
                                 diffusion_v=0.02)  # fmt: skip
    paths = folder_of(recipe, tmp_path / "a")
    assert [path.name for path in paths] == ["wave_00000.hdf5", "wave_00001.hdf5", "wave_00002.hdf5"]
    with h5py.File(paths[1]) as file:
        root = dict(file.attrs)
        assert (root["dataset_name"], root["grid_type"]) == ("gray_scott_wave", "cartesian")
        assert (root["n_spatial_dims"], root["n_trajectories"]) == (2, 4)
        for name in root["simulation_parameters"]:
            assert name in root and name in file["scalars"]
        shape = (4, recipe.frames, 24, 31)
        for name in file["t0_fields"].attrs["field_names"]:
            field = file["t0_fields"][name]
            assert field.shape == shape and field.dtype == np.float32 and field.chunks is None
            assert field.attrs["dim_varying"].tolist() == [True, True]
            assert field.attrs["sample_varying"] and field.attrs["time_varying"]
        for order in (1, 2):
            assert list(file[f"t{order}_fields"].attrs["field_names"]) == []
        dimensions = file["dimensions"]
        assert dimensions.attrs["spatial_dims"].tolist() == ["x", "y"]
        assert dimensions["time"][:].tolist() == recipe.times
        assert dimensions["x"][:].tolist() == [0.5 * i for i in range(24)]
        assert dimensions["y"].shape == (31,)
        for name in ("x", "y"):
            side = file[f"boundary_conditions/{name}_periodic"]
            assert side.attrs["bc_type"] == "PERIODIC" and side.attrs["associated_dims"].tolist() == [name]
            assert side["mask"][0] and side["mask"][-1] and side["mask"][:].sum() == 2
        scalars = file["scalars"]
        assert scalars.attrs["field_names"].tolist() == ["F", "k", "Du", "Dv", "seed", "sample", "attempt"]
        np.testing.assert_allclose(scalars["F"][:], [0.018, 0.03, 0.018, 0.03], rtol=1e-7)
        assert scalars["k"].shape == () and scalars["seed"][()] == 77
        assert scalars["sample"][:].tolist() == [4, 5, 6, 7]
        nodes = [dimensions["x"], dimensions["time"], *scalars.values(), *file["boundary_conditions"].values()]
        for node in nodes:
            for attribute in ("sample_varying", "time_varying"):
                assert isinstance(node.attrs[attribute], np.bool_)
        for node in scalars.values():
            assert node.ndim == int(node.attrs["sample_varying"]) + int(node.attrs["time_varying"])


def test_large_shard_takes_no_memory():
    """The layout of a shard of 1.6 TB: only its metadata is kept."""
    recipe = Recipe.from_preset("wave", samples=1000, size=1024, steps=10_000, every=50, shard_samples=1000)
    plan = layout(recipe, 0, np.zeros(1000))
    assert plan.size > 1.6e12
    assert sum(len(data) for _, data in plan.pieces) < 100_000
    assert plan.offsets[1] - plan.offsets[0] >= 1000 * 201 * 1024 * 1024 * 4


def test_unfinished_shard_can_be_discarded(recipe, tmp_path):
    writer = ShardWriter(tmp_path / "x.part", recipe, 0)
    writer.write(1, np.zeros((3, 2, 24, 31), np.float32), 0)
    writer.discard()
    writer.discard()
    assert not list(tmp_path.iterdir())
