import json
import shutil

import pytest
from typer.testing import CliRunner

from eqflow.cli import app
from eqflow.data import Recipe, generate


def run(*words):
    return CliRunner().invoke(app, ["info", *map(str, words)])


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("info") / "wave"
    recipe = Recipe.from_preset("wave", samples=4, size=24, steps=20, every=10, shard_samples=2, seed=3)
    generate(recipe, folder, command="eqflow generate wave …")
    return folder


@pytest.fixture
def wave(made, tmp_path):
    return shutil.copytree(made, tmp_path / "wave")


def test_a_whole_dataset_is_described(wave):
    result = run(wave)
    assert result.exit_code == 0 and result.stderr == ""
    for words in (
        "complete, checksums hold",
        "wave  F 0.018  k 0.049  24 × 24",
        "4 of 4: 3 frames, every 10 of 20",
        "discs, seed 3; none died",
        "2 of 2",
        "[4, 3, 2, 24, 24]",
        "native",
        "eqflow generate wave …",
    ):
        assert words in result.stdout
    assert "to do" not in result.stdout


def test_the_json_says_the_same(wave):
    facts = json.loads(run(wave, "--json").stdout)
    assert facts["complete"] and facts["recipe"]["seed"] == 3 and facts["shards"] == 2 and facts["problems"] == []


def test_a_missing_file_is_named_and_the_remedy_works(wave):
    (wave / "data/train/wave_00001.hdf5").unlink()
    result = run(wave)
    assert result.exit_code == 1 and "not complete" in result.stdout and "wave_00001.hdf5" in result.stdout
    assert f"`eqflow generate --out {wave}` makes what is missing" in result.stdout
    assert CliRunner().invoke(app, ["generate", "--out", str(wave)]).exit_code == 0
    assert run(wave).exit_code == 0


def test_an_altered_byte_is_found_by_the_checksum_alone(wave):
    path = wave / "data/train/wave_00000.hdf5"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    result = run(wave)
    assert result.exit_code == 1 and "altered" in result.stdout and "delete the files named, then" in result.stdout
    assert json.loads(run(wave, "--json").stdout)["complete"] is False
    result = run(wave, "--no-checksums")
    assert result.exit_code == 0 and "checksums were not compared" in result.stdout


def test_a_truncated_file_is_found_by_its_size(wave):
    path = wave / "data/train/wave_00000.hdf5"
    path.write_bytes(path.read_bytes()[:-100])
    assert "truncated" in (result := run(wave, "--no-checksums")).stdout and result.exit_code == 1


@pytest.mark.parametrize("name", ["nowhere", "."])
def test_what_is_not_a_dataset_is_one_line(tmp_path, name):
    result = run(tmp_path / name)
    assert result.exit_code == 1 and result.stdout == ""
    assert "is not an eqflow dataset" in result.stderr and result.stderr.count("\n") == 1
