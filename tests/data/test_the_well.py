"""The unmodified `the_well` package opens what eqflow wrote."""

import dataclasses

import pytest
import torch
from torch.utils.data import DataLoader

from eqflow.data import Snapshots, generate

the_well = pytest.importorskip("the_well.data", reason="pip install the_well")
NORMALIZATIONS = (None, "ZScoreNormalization", "RMSNormalization")


def well(kind, folder, normalization, **arguments):
    from the_well.data import normalization as normalizations

    kind = getattr(the_well, kind)
    chosen = normalization and getattr(normalizations, normalization)
    return kind(
        path=str(folder), well_split_name="train", use_normalization=chosen is not None, normalization_type=chosen,
        **arguments,
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["WellDataset", "DeltaWellDataset"])
@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("swept", [False, True], ids=["constant", "sweep"])
def test_trajectories(recipe, tmp_path, kind, normalization, swept):
    if swept:
        recipe = dataclasses.replace(recipe, feed=(0.018, 0.02, 0.022))
    generate(recipe, tmp_path / "a")
    data = well(kind, tmp_path / "a", normalization, n_steps_input=1, n_steps_output=1)
    assert len(data) == 9 * 2
    batches = list(DataLoader(data, batch_size=6))
    fields = torch.cat([batch["input_fields"] for batch in batches])
    assert fields.shape == (18, 1, 24, 31, 2) and fields.isfinite().all()
    ours = Snapshots(tmp_path / "a", frames="all", normalize=normalization == "ZScoreNormalization").load()
    if normalization != "RMSNormalization":
        theirs = fields.view(9, 2, 24, 31, 2).permute(0, 1, 4, 2, 3)
        torch.testing.assert_close(theirs, ours[:, :2], rtol=1e-5, atol=1e-5)
    feed = torch.cat([batch["constant_scalars"] for batch in batches])[::2, 0]
    torch.testing.assert_close(feed.double(), recipe.parameters(torch.arange(9))[:, 0], rtol=1e-6, atol=0)
    assert (batches[0]["boundary_conditions"] == the_well.datasets.BoundaryCondition.PERIODIC.value).all()
    assert (data.metadata.field_names[0], data.metadata.spatial_resolution) == (["A", "B"], (24, 31))


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_snapshots(recipe, tmp_path, normalization):
    generate(dataclasses.replace(recipe, every=None), tmp_path / "a")
    data = well("WellDataset", tmp_path / "a", normalization, n_steps_input=1, n_steps_output=0)
    assert len(data) == 9
    fields = torch.cat([batch["input_fields"] for batch in DataLoader(data, batch_size=4)])
    assert fields.shape == (9, 1, 24, 31, 2) and fields.isfinite().all()
    if normalization is None:
        assert torch.equal(fields[:, 0].movedim(-1, 1), Snapshots(tmp_path / "a").load())


def test_whole_trajectory(recipe, tmp_path):
    generate(recipe, tmp_path / "a")
    data = well("WellDataset", tmp_path / "a", None, full_trajectory_mode=True, n_steps_input=1)
    assert len(data) == 9 and data[0]["output_fields"].shape == (2, 24, 31, 2)
