import numpy as np
import pytest
from PIL import Image

from eqflow.cli import _films, _pictures
from eqflow.cli._shell import Problem

WORDS = _pictures.Words("wave", ("F 0.018  k 0.049", "step 10"), "v", (0.0, 1.0))


@pytest.mark.parametrize(("count", "columns"), [(1, 1), (2, 2), (6, 3), (16, 4), (24, 6), (7, 4), (64, 8)])
def test_the_grid_is_full_and_near_three_to_two(count, columns):
    assert _pictures.columns_for(count, 128, 128) == columns


def test_a_tile_shows_each_cell_as_a_square_of_one_colour():
    field = np.random.default_rng(0).random((1, 8, 8))
    sheet = _pictures.Sheet(1, 8, 8, WORDS)
    drawing = sheet.draw(field)
    height, width = sheet.tile
    tile = drawing[sheet.top : sheet.top + height, sheet.left : sheet.left + width]
    cells = tile.reshape(8, height // 8, 8, width // 8)
    assert (cells == cells[:, :1, :, :1]).all()
    np.testing.assert_array_equal(cells[:, 0, :, 0], np.rint(field[0] * (_pictures.LEVELS - 1)))


@pytest.mark.parametrize("shape", [(1, 3, 3), (24, 128, 128), (5, 96, 160), (9, 300, 7), (2, 2048, 1024)])
def test_any_grid_gives_an_even_picture_of_sensible_size(shape):
    sheet = _pictures.Sheet(*shape, WORDS)
    drawing = sheet.draw(np.zeros(shape, np.float32), "step 5")
    assert drawing.shape == sheet.shape and drawing.shape[0] % 2 == drawing.shape[1] % 2 == 0
    assert 100 < max(drawing.shape) < 2500


def test_labels_take_room_and_leave_the_tiles_alone():
    fields = np.ones((6, 16, 16), np.float32)
    plain = _pictures.Sheet(6, 16, 16, WORDS)
    axes = WORDS._replace(rows=("F 0.01", "F 0.02"), columns=("k 0.04", "k 0.05", "k 0.06"))
    mapped = _pictures.Sheet(6, 16, 16, axes, columns=3)
    assert mapped.shape[0] > plain.shape[0] and mapped.shape[1] > plain.shape[1]
    top = _pictures.LEVELS - 1
    pixels = mapped.tile[0] * mapped.tile[1] * 6
    assert pixels <= (mapped.draw(fields) == top).sum() < pixels * 1.01  # the key has a column of that colour


def test_limits_leave_out_the_outermost_values_and_survive_a_uniform_field():
    values = np.linspace(0, 1, 1000**2).reshape(1, 1000, 1000)
    assert _pictures.limits(values) == pytest.approx((0.001, 0.999), abs=1e-3)
    assert _pictures.limits(np.full((1, 8, 8), 0.3)) == pytest.approx((-0.2, 0.8))


@pytest.fixture
def drawings():
    sheet = _pictures.Sheet(1, 16, 16, WORDS)
    return [sheet.draw(np.random.default_rng(i).random((1, 16, 16))) for i in range(5)]


def test_a_png_holds_the_drawing_in_the_colours_of_the_palette(tmp_path, drawings):
    palette = _pictures.palette("magma")
    _films.save_still(tmp_path / "a.png", drawings[0], palette, "wave")
    with Image.open(tmp_path / "a.png") as image:
        assert image.text["Title"] == "wave"
        np.testing.assert_array_equal(np.asarray(image.convert("RGB")), palette[drawings[0]])
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_a_gif_holds_every_frame_in_the_colours_of_the_palette(tmp_path, drawings):
    palette = _pictures.palette("viridis")
    _films.save_film(tmp_path / "a.gif", drawings, palette, 25)
    with Image.open(tmp_path / "a.gif") as film:
        assert film.n_frames == 5 and film.info["duration"] == 40 and film.info["loop"] == 0
        for number, drawing in enumerate(drawings):
            film.seek(number)
            np.testing.assert_array_equal(np.asarray(film.convert("RGB")), palette[drawing])


def test_an_mp4_holds_every_frame(tmp_path, drawings):
    imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg")
    _films.save_film(tmp_path / "a.mp4", drawings, _pictures.palette("magma"), 25)
    assert imageio_ffmpeg.count_frames_and_secs(str(tmp_path / "a.mp4")) == (5, pytest.approx(0.2, abs=0.02))
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


def test_a_film_that_fails_leaves_nothing_behind(tmp_path, drawings):
    def failing():
        yield drawings[0]
        raise RuntimeError("lights out")

    with pytest.raises(RuntimeError, match="lights out"):
        _films.save_film(tmp_path / "a.gif", failing(), _pictures.palette("magma"), 25)
    assert not list(tmp_path.iterdir())


def test_a_target_is_checked_before_anything_is_read(tmp_path, monkeypatch):
    (tmp_path / "there.png").touch()
    for name, words in [("a.jpg", r"end in .png"), ("there.png", "--overwrite"), ("no/a.png", "folder .* to exist")]:
        with pytest.raises(Problem, match=words):
            _films.check_target(tmp_path / name, overwrite=False)
    _films.check_target(tmp_path / "there.png", overwrite=True)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(Problem, match=r"eqflow\[video\]"):
        _films.check_target(tmp_path / "a.mp4", overwrite=False)
