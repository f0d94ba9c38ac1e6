"""Wrong folders, refusing disks, damaged files: what, where, remedy, and nothing else harmed."""

import dataclasses
import errno
import os
import resource

import pytest

from eqflow.data import DatasetError, Snapshots, generate, inspect
from eqflow.data import shard as shard_module


@pytest.fixture
def folder(recipe, tmp_path):
    generate(recipe, tmp_path / "a")
    return tmp_path / "a"


def shard(folder, index):
    return folder / "data" / "train" / f"wave_{index:05d}.hdf5"


def flip_a_byte(path):
    with open(path, "r+b") as file:
        file.seek(path.stat().st_size - 100)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))


# ---- inspect


def test_inspect_of_a_whole_dataset(recipe, folder, digests):
    before = digests(folder)
    report = inspect(folder)
    assert report.complete and report.problems == [] and report.recipe == recipe
    assert (report.samples, report.shards, report.shards_total) == (9, 3, 3)
    assert report.shape == (9, 3, 2, 24, 31)
    assert report.bytes == sum(shard(folder, i).stat().st_size for i in range(3))
    assert report.environment["torch"]
    assert digests(folder) == before


def test_inspect_finds_what_is_wrong(folder):
    flip_a_byte(shard(folder, 0))
    os.truncate(shard(folder, 1), 5000)
    shard(folder, 2).unlink()
    (folder / "data" / "train" / "more.hdf5").touch()
    (folder / "stats.yaml").unlink()
    report = inspect(folder)
    assert not report.complete and report.shards == 0
    missing, altered, truncated, stranger, statistics = report.problems
    assert missing.startswith("1 of 3 shards are missing, first data/train/wave_00002.hdf5")
    assert altered.startswith("data/train/wave_00000.hdf5: altered, its SHA-256")
    assert truncated.startswith("data/train/wave_00001.hdf5: truncated, 5,000 bytes of")
    assert stranger.startswith("data/train/more.hdf5: not of this dataset")
    assert statistics.startswith("stats.yaml: missing")
    assert len(inspect(folder, checksums=False).problems) == 4  # the flipped bit has no size


def test_inspect_of_something_else(tmp_path):
    with pytest.raises(DatasetError, match=r"not an eqflow dataset: no such folder"):
        inspect(tmp_path / "nowhere")
    with pytest.raises(DatasetError, match=r"not an eqflow dataset: it has no manifest"):
        inspect(tmp_path)
    (tmp_path / "manifest.json").write_text('{"recipe": {"format": 1, "colour": "red"}}')
    with pytest.raises(DatasetError, match=r"manifest.json is not a recipe that this eqflow can read: .*colour"):
        inspect(tmp_path)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(DatasetError, match=r"manifest.json is damaged"):
        inspect(tmp_path)


# ---- damaged shards


def test_truncated_shard_is_refused_and_repaired(recipe, folder, digests):
    before = digests(folder)
    os.truncate(shard(folder, 1), 5000)
    with pytest.raises(DatasetError, match=r"wave_00001.hdf5 has 5,000 bytes, but eqflow wrote .*delete it and run"):
        generate(recipe, folder)
    assert generate(recipe, folder, overwrite=True).shards_made == 1
    assert digests(folder) == before


def test_altered_shard_is_repaired_with_overwrite(recipe, folder, digests):
    before = digests(folder)
    flip_a_byte(shard(folder, 0))
    assert generate(recipe, folder).already_complete  # sizes only
    assert generate(recipe, folder, overwrite=True).shards_made == 1
    assert digests(folder) == before


def test_deleted_shard_is_made_again(recipe, folder, digests):
    before = digests(folder)
    shard(folder, 1).unlink()
    assert generate(recipe, folder).shards_made == 1
    assert digests(folder) == before


def test_damaged_facts(recipe, folder):
    (folder / ".shards" / "00001.json").write_text("{}")
    with pytest.raises(DatasetError, match=r"00001.json is damaged: delete it and .*wave_00001.hdf5"):
        generate(recipe, folder)


# ---- other contents


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 60}, "steps is 40 there and 60 here"),
        ({"seed": 1}, "seed is 0 there and 1 here"),
        ({"feed": (0.02,)}, r"feed is \[0.018\] there and \[0.02\] here"),
        ({"shard_samples": 5}, "shard_samples is 4 there and 5 here"),
    ],
)
def test_another_recipe_is_refused(recipe, folder, digests, change, message):
    before = digests(folder)
    other = dataclasses.replace(recipe, **change)
    with pytest.raises(DatasetError, match=f"holds another dataset: {message}.*overwrite"):
        generate(other, folder)
    assert digests(folder) == before


def test_overwrite_replaces_the_dataset_only(recipe, folder, tmp_path, digests):
    (folder / "notes.txt").write_text("mine")
    (folder / "data" / "train" / "mine.txt").write_text("mine too")
    other = dataclasses.replace(recipe, name="custom", samples=5)
    generate(other, folder, overwrite=True)
    generate(other, tmp_path / "b")
    found = digests(folder)
    assert {found.pop("notes.txt"), found.pop("data/train/mine.txt")}
    assert found == digests(tmp_path / "b")


@pytest.mark.parametrize("overwrite", [False, True])
def test_foreign_files_are_not_touched(recipe, tmp_path, overwrite):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(DatasetError, match=r"holds files that are not an eqflow dataset \(thesis.tex\)"):
        generate(recipe, tmp_path, overwrite=overwrite)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_file_where_the_folder_should_be(recipe, tmp_path):
    (tmp_path / "a").write_text("")
    for path in (tmp_path / "a", tmp_path / "a" / "b"):
        with pytest.raises(DatasetError, match=r"cannot create .*file.*choose"):
            generate(recipe, path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_read_only_folder(recipe, tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(DatasetError, match=r"cannot create .*permission denied"):
            generate(recipe, tmp_path / "a")
    finally:
        tmp_path.chmod(0o700)


# ---- full disks


def check_recovery(recipe, folder, tmp_path, digests):
    """After the error the finished shards are there, nothing unfinished is, and the work can go on."""
    assert not list((folder / "data" / "train").glob(".*"))
    report = inspect(folder)
    assert 0 < report.shards < 3 and [p for p in report.problems if "missing" not in p] == []
    generate(recipe, folder)
    generate(recipe, tmp_path / "b")
    assert digests(folder) == digests(tmp_path / "b")


def test_full_disk(recipe, tmp_path, digests, monkeypatch):
    write, room = os.pwrite, 0

    def pwrite(handle, data, offset):
        nonlocal room
        room -= 1
        if room < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(handle, data[:1000], offset)  # and no write is whole

    with monkeypatch.context() as patch:
        patch.setattr(shard_module.os, "pwrite", pwrite)
        room = 180
        with pytest.raises(DatasetError, match=r"cannot write .*wave_0000.*the disk is full: free some space"):
            generate(recipe, tmp_path / "a")
    check_recovery(recipe, tmp_path / "a", tmp_path, digests)


def test_file_size_limit(recipe, tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, hard))
    try:
        with pytest.raises(DatasetError, match=r"cannot write .*larger than allowed.*shard_samples"):
            generate(recipe, tmp_path / "a")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list((tmp_path / "a" / "data" / "train").iterdir())
    assert generate(recipe, tmp_path / "a").complete
    assert Snapshots(tmp_path / "a").load().isfinite().all()
