import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from eqflow.cli import _captions, app
from eqflow.data import Recipe, generate


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    place = tmp_path_factory.mktemp("show")
    small = {"size": 24, "steps": 40}
    generate(Recipe.from_preset("wave", samples=5, **small), place / "stills")
    generate(Recipe.from_preset("wave", samples=3, every=10, **small), place / "films")
    sweep = {"feed": (0.01, 0.02), "kill": (0.04, 0.05, 0.06)}
    generate(Recipe.from_preset("wave", samples=7, sweep=sweep, redraw_dead=False, **small), place / "map")
    return place


def run(*words, code=0):
    result = CliRunner().invoke(app, ["show", *map(str, words)])
    assert result.exit_code == code, result.stderr
    if code:
        assert result.stdout == "" and result.stderr.count("\n") == 1 and result.stderr.startswith("error: ")
    return result


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def test_the_picture_has_the_name_of_the_folder_and_lies_here(folders, here):
    assert run(folders / "stills").stdout == "wrote stills.png\n"
    with Image.open(here / "stills.png") as image:
        assert image.text["Title"].startswith("wave  F 0.018  k 0.049") and min(image.size) > 200


def test_a_picture_is_replaced_only_on_demand(folders, here):
    (here / "mine.png").write_bytes(b"mine")
    result = run(folders / "stills", "--out", "mine.png", code=1)
    assert "exists already: add --overwrite" in result.stderr and (here / "mine.png").read_bytes() == b"mine"
    run(folders / "stills", "--out", "mine.png", "--overwrite")
    assert (here / "mine.png").read_bytes().startswith(b"\x89PNG")


def test_fields_colours_and_numbers_of_samples_differ(folders, here):
    run(folders / "stills", "--out", "v.png")
    run(folders / "stills", "--out", "u.png", "--field", "u", "--colormap", "viridis")
    run(folders / "stills", "--out", "two.png", "--samples", 2, "--first", 1)
    v, u, two = (pixels(here / f"{name}.png") for name in ("v", "u", "two"))
    assert v.shape == u.shape != two.shape and (v != u).any()


def test_a_sweep_is_shown_as_a_map_with_its_axes(folders):
    run(folders / "map")
    recipe = Recipe.from_preset("wave", samples=6, size=24, sweep={"feed": (0.01, 0.02), "kill": (0.04, 0.05, 0.06)})
    assert _captions.map_axes(recipe, range(6)) == (["F 0.01", "F 0.02"], ["k 0.04", "k 0.05", "k 0.06"])
    assert _captions.map_axes(recipe, range(5)) is None
    assert _captions.tile_labels(recipe, [1, 7]) == ["F 0.01  k 0.05", "F 0.01  k 0.05"]
    one = Recipe.from_preset("wave", samples=6, size=24, sweep={"kill": (0.04, 0.05, 0.06)})
    assert _captions.map_axes(one, range(3)) is None and _captions.tile_labels(one, [2]) == ["k 0.06"]
    assert _captions.details(one, "")[0] == "F 0.018  k 0.04 to 0.06"


@pytest.mark.parametrize("name", ["film.gif", "film.mp4"])
def test_a_film_has_every_frame(folders, here, name):
    ffmpeg = pytest.importorskip("imageio_ffmpeg") if name.endswith("mp4") else None
    run(folders / "films", "--out", name, "--samples", 2)
    if ffmpeg:
        assert ffmpeg.count_frames_and_secs(str(here / name))[0] == 5
    else:
        with Image.open(here / name) as film:
            assert film.n_frames == 5


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["stills", "--out", "a.gif"], 2, "holds one frame of each sample"),
        (["stills", "--out", "a.jpg"], 2, "end in .png, .gif or .mp4"),
        (["stills", "--out", "no/a.png"], 1, "expected the folder no to exist"),
        (["stills", "--field", "w"], 2, "expected --field to be u or v, got 'w'"),
        (["stills", "--colormap", "magmaa"], 2, "did you mean magma"),
        (["stills", "--samples", "0"], 2, "expected --samples from 1 up"),
        (["stills", "--first", "5"], 2, "expected --first below 5"),
        (["films", "--out", "a.gif", "--rate", "nan"], 2, "expected --rate"),
        (["nowhere"], 1, "is not an eqflow dataset"),
    ],
)
def test_a_wrong_request_is_one_line_and_no_file(folders, here, words, code, message):
    assert message in run(folders / words[0], *words[1:], code=code).stderr
    assert not list(here.iterdir())


def test_mp4_without_its_package_names_the_extra(folders, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "pip install 'eqflow[video]'" in run(folders / "films", "--out", "a.mp4", code=1).stderr
