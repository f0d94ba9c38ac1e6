import pytest

from eqflow.cli import _words
from eqflow.cli._shell import Problem


def test_a_size_is_a_number_or_two():
    assert _words.size("128") == (128, 128)
    assert _words.size("96x160") == _words.size("96X160") == (96, 160)


@pytest.mark.parametrize("text", ["", "x", "12x", "-8", "1.5", "2", "128x2", "8x8x8", "nan"])
def test_other_sizes_are_refused(text):
    with pytest.raises(Problem, match="expected --size") as error:
        _words.size(text)
    assert error.value.exit_code == 2 and repr(text) in str(error.value)


@pytest.mark.parametrize(
    ("text", "samples"),
    [(None, None), ("512", 512), ("1MB", 10), ("1MiB", 10), ("0.5kB", 1), ("100kB", 1), ("2GB", 20_000), ("3 MB", 30)],
)
def test_a_shard_size_is_samples_or_bytes(text, samples):
    assert _words.shard_samples(text, 100_000) == samples


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "MB", "0MB", "5MX", "nan", "1e3"])
def test_other_shard_sizes_are_refused(text):
    with pytest.raises(Problem, match="expected --shard-size"):
        _words.shard_samples(text, 1000)


def test_one_sweep_has_both_ends_and_plain_decimals():
    assert _words.sweeps(["feed=0.01:0.06:6"]) == {"feed": (0.01, 0.02, 0.03, 0.04, 0.05, 0.06)}


def test_several_sweeps_form_a_grid_whose_last_axis_is_fastest():
    grid = _words.sweeps(["kill=0.04:0.05:2", "diffusion-u=0.1:0.2:3"])
    assert grid == {"kill": (0.04, 0.04, 0.04, 0.05, 0.05, 0.05), "diffusion_u": (0.1, 0.15, 0.2) * 2}


@pytest.mark.parametrize(
    "text",
    ["feed", "feed=", "feed=1", "feed=1:2", "food=0:1:2", "feed=0:1:2:3", "feed=a:b:3", "feed=0:1:0", "feed=0:1:1",
     "feed=-1:1:3", "feed=nan:1:3", "feed=0:inf:3", "feed=0:1:2.5", "dt=0.1:1:4"],
)  # fmt: skip
def test_other_sweeps_are_refused_with_the_syntax_or_the_bound(text):
    with pytest.raises(Problem, match="expected") as error:
        _words.sweeps([text])
    assert error.value.exit_code == 2 and repr(text) in str(error.value)


def test_two_sweeps_of_one_parameter_are_refused():
    with pytest.raises(Problem, match="one --sweep of feed"):
        _words.sweeps(["feed=0:1:2", "feed=0:2:3"])


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.84, "0.8 s"), (9.96, "10 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (185, "3 min 05 s"), (7800, "2 h 10 min")],
)
def test_durations_are_for_people(seconds, words):
    assert _words.duration(seconds) == words


def test_sizes_are_for_people():
    sizes = [_words.bytes_(x) for x in (0, 999, 1000, 134_217_728, 1.57e11)]
    assert sizes == ["0 B", "999 B", "1 kB", "134 MB", "157 GB"]
