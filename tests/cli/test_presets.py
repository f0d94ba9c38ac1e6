import json

from typer.testing import CliRunner

from eqflow.cli import app
from eqflow.systems.gray_scott import PRESETS


def run(*words):
    return CliRunner().invoke(app, ["presets", *words])


def test_every_preset_is_listed_with_its_source():
    result = run()
    assert result.exit_code == 0
    assert all(name in result.stdout and preset.source in result.stdout for name, preset in PRESETS.items())


def test_a_word_narrows_the_list():
    assert {row["character"] for row in json.loads(run("moving", "--json").stdout)} == {"moving"}
    assert all("pearson" in row["name"] for row in json.loads(run("pearson-", "--json").stdout))


def test_a_word_that_matches_nothing_is_an_error():
    result = run("dragons")
    assert result.exit_code == 2 and "got 'dragons'" in result.stderr and result.stdout == ""
