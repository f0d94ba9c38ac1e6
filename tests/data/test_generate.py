"""What is made: the right states, the same bytes however the work is cut, honest counts."""

import dataclasses
import itertools
import json

import h5py
import numpy as np
import pytest
import torch
import yaml

from eqflow.data import DatasetError, Recipe, Snapshots, generate, inspect, simulate
from eqflow.systems.gray_scott import initial_state, is_dead


def states(recipe, sample, attempt=0):
    """One sample, made by hand."""
    start = initial_state(
        recipe.initial, torch.tensor([sample]), recipe.height, recipe.width, seed=recipe.seed, attempt=attempt
    )
    end = recipe.system(sample).run(start, recipe.steps, every=recipe.every)
    return torch.cat([start, end[0]]) if recipe.every else end


def test_every_sample_is_what_the_operator_gives(recipe, tmp_path):
    sweep = dataclasses.replace(recipe, feed=(0.018, 0.03), diffusion_u=(0.16, 0.12))
    for made in (recipe, sweep):
        folder = tmp_path / str(len(made.feed))
        summary = generate(made, folder)
        assert summary.complete and not summary.already_complete
        assert (summary.samples, summary.shards, summary.shards_made) == (9, 3, 3)
        data = Snapshots(folder, frames="all")
        for sample in range(9):
            assert torch.equal(data[sample], states(made, sample))


def test_final_states_only(recipe, tmp_path):
    recipe = dataclasses.replace(recipe, every=None)
    generate(recipe, tmp_path / "a")
    data = Snapshots(tmp_path / "a")
    assert torch.equal(data[8], states(recipe, 8)[0])


def test_no_steps_store_the_starts(recipe, tmp_path):
    recipe = dataclasses.replace(recipe, every=None, steps=0)
    generate(recipe, tmp_path / "a")
    whole = Snapshots(tmp_path / "a").load()
    assert torch.equal(whole, initial_state("discs", torch.arange(9), 24, 31, seed=0))


def test_bytes_do_not_depend_on_chunks_and_threads(recipe, digests, tmp_path, monkeypatch):
    generate(recipe, tmp_path / "a")
    threads = torch.get_num_threads()
    monkeypatch.setattr(simulate, "_CHUNK_BYTES", 1)
    try:
        torch.set_num_threads(threads % 2 + 1)
        generate(recipe, tmp_path / "b")
    finally:
        torch.set_num_threads(threads)
    assert digests(tmp_path / "a") == digests(tmp_path / "b")


def test_two_ranks_make_the_files_of_one(recipe, digests, tmp_path):
    generate(recipe, tmp_path / "one")
    first = generate(recipe, tmp_path / "two", rank=1, ranks=2)
    assert not first.complete and first.shards_made == 1 and first.samples == 4
    assert not (tmp_path / "two" / "manifest.json").exists()
    last = generate(recipe, tmp_path / "two", rank=0, ranks=2)
    assert last.complete and last.shards_made == 2 and last.samples == 9
    assert digests(tmp_path / "one") == digests(tmp_path / "two")


def test_rank_0_gives_up_on_ranks_that_never_come(recipe, tmp_path, monkeypatch):
    monkeypatch.setattr("eqflow.data.wait.PATIENCE", 0.3)
    with pytest.raises(DatasetError, match=r"no progress for .* waiting for shards 1 of ranks 1"):
        generate(recipe, tmp_path / "a", rank=0, ranks=2)
    assert inspect(tmp_path / "a").shards == 2


def test_the_same_again_does_nothing(recipe, tmp_path):
    generate(recipe, tmp_path / "a")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "a").rglob("*") if path.is_file()}
    summary = generate(recipe, tmp_path / "a", observer=lambda progress: pytest.fail("nothing was left to do"))
    assert summary.already_complete and summary.complete and summary.shards_made == 0 and summary.samples == 9
    after = {path: path.stat().st_mtime_ns for path in before}
    assert {k: v for k, v in before.items() if k.name != "claim.lock"} == {
        k: v for k, v in after.items() if k.name != "claim.lock"
    }


def test_only_the_shards_are_needed_to_go_on(recipe, digests, tmp_path):
    """A folder without its private half, as a user might copy it, can still be mended."""
    generate(recipe, tmp_path / "a")
    before = digests(tmp_path / "a")
    for file in (tmp_path / "a" / ".shards").iterdir():
        file.unlink()
    (tmp_path / "a" / ".shards").rmdir()
    assert inspect(tmp_path / "a").complete
    (tmp_path / "a" / "data" / "train" / "wave_00001.hdf5").unlink()
    assert generate(recipe, tmp_path / "a").shards_made == 1
    public = {name: value for name, value in before.items() if not name.startswith(".shards")}
    assert {name: value for name, value in digests(tmp_path / "a").items() if name in public} == public


def test_progress_adds_up(recipe, tmp_path):
    seen = []
    summary = generate(recipe, tmp_path / "a", observer=seen.append)
    assert all(a <= b for a, b in itertools.pairwise(seen))
    last = seen[-1]
    assert (last.samples_done, last.samples_total, last.shards_done, last.shards_total) == (9, 9, 3, 3)
    assert last.cell_updates == summary.cell_updates == 9 * 24 * 31 * 40
    assert last.bytes_written == 9 * recipe.sample_bytes
    (tmp_path / "a" / "data" / "train" / "wave_00002.hdf5").unlink()
    generate(recipe, tmp_path / "a", observer=seen.append)
    assert seen[-1].samples_done == 9 and seen[-1].cell_updates == 24 * 31 * 40


# ---- dead samples

FRAGILE = {"name": "spirals", "feed": (0.007,), "kill": (0.028,), "initial": "squares", "every": None, "steps": 500}


@pytest.fixture
def fragile(recipe):
    return dataclasses.replace(recipe, **FRAGILE, height=64, width=64, samples=12)


def test_dead_samples_are_redrawn_and_counted(fragile, tmp_path):
    summary = generate(fragile, tmp_path / "a")
    assert 0 < summary.redrawn < 12 and summary.dead == 0 and summary.rejected >= summary.redrawn
    attempts = []
    for path in sorted((tmp_path / "a" / "data" / "train").iterdir()):
        with h5py.File(path) as file:
            attempts += file["scalars/attempt"][:].astype(int).tolist()
    assert sum(attempts) == summary.rejected and sum(a > 0 for a in attempts) == summary.redrawn
    data = Snapshots(tmp_path / "a")
    for sample, attempt in enumerate(attempts):
        assert torch.equal(data[sample], states(fragile, sample, attempt)[0])
        assert not is_dead(data[sample][None]).any()
        assert all(is_dead(states(fragile, sample, earlier)).all() for earlier in range(attempt))
    manifest = json.loads((tmp_path / "a" / "manifest.json").read_text())
    assert manifest["counts"]["redrawn"] == summary.redrawn
    assert "0.001" in manifest["dead_rule"]


def test_dead_samples_can_be_kept(fragile, tmp_path):
    redrawn = generate(fragile, tmp_path / "a").redrawn
    summary = generate(dataclasses.replace(fragile, redraw_dead=False), tmp_path / "b")
    assert (summary.dead, summary.redrawn, summary.rejected) == (redrawn, 0, 0)


def test_parameters_that_always_die_are_an_error(fragile, tmp_path, monkeypatch):
    monkeypatch.setattr(simulate, "MOST_REDRAWS", 2)
    hopeless = dataclasses.replace(fragile, name="custom", kill=(0.2,))
    with pytest.raises(DatasetError, match=r"sample 0 .*kill = 0.2.*these parameters die.*redraw_dead=False"):
        generate(hopeless, tmp_path / "a")
    assert not list((tmp_path / "a" / "data" / "train").iterdir())


# ---- files beside the shards


def test_statistics_are_those_of_the_states(recipe, tmp_path):
    generate(recipe, tmp_path / "a")
    whole = Snapshots(tmp_path / "a", frames="all").load().double().numpy()
    stats = yaml.safe_load((tmp_path / "a" / "stats.yaml").read_text())
    for suffix, values in (("", whole), ("_delta", np.diff(whole, axis=1))):
        for field, name in enumerate("AB"):
            part = values[:, :, field]
            assert stats["mean" + suffix][name] == pytest.approx(part.mean(), rel=1e-12, abs=1e-15)
            assert stats["std" + suffix][name] == pytest.approx(part.std(), rel=1e-12)
            assert stats["rms" + suffix][name] == pytest.approx(np.sqrt((part**2).mean()), rel=1e-12)


def test_one_frame_has_neutral_deltas(recipe, tmp_path):
    generate(dataclasses.replace(recipe, every=None), tmp_path / "a")
    stats = yaml.safe_load((tmp_path / "a" / "stats.yaml").read_text())
    assert [stats[key]["A"] for key in ("mean_delta", "std_delta", "rms_delta")] == [0, 1, 1]


def test_manifest(recipe, tmp_path):
    generate(recipe, tmp_path / "a", command="eqflow generate wave")
    manifest = json.loads((tmp_path / "a" / "manifest.json").read_text())
    assert Recipe.from_json(manifest["recipe"]) == recipe
    assert manifest["environment"]["command"] == "eqflow generate wave"
    assert {"eqflow", "torch", "numpy", "h5py", "hdf5", "python", "device"} <= manifest["environment"].keys()
    assert manifest["layout"]["shape"] == [9, 3, 24, 31]
    assert [row["samples"] for row in manifest["shards"]] == [4, 4, 1]
    assert manifest["counts"]["samples"] == 9


def test_ranks_are_checked(recipe, tmp_path):
    with pytest.raises(ValueError, match="expected rank in"):
        generate(recipe, tmp_path / "a", rank=2, ranks=2)
    assert not (tmp_path / "a").exists()
