"""Pictures of creatures: read at their size, and refused with a remedy."""

import numpy as np
import pytest
import torch
from PIL import Image

from eqflow.data import PicturesError, icons, read_creature


def save(path, pixels: np.ndarray, mode: str | None = None):
    image = Image.fromarray(pixels.astype(np.uint8))
    (image if mode is None else image.convert(mode)).save(path)
    return path


@pytest.fixture
def drawing(tmp_path):
    """A red bar of 60 x 20 on a clear sheet whose hidden colour is green."""
    pixels = np.zeros((100, 100, 4))
    pixels[..., 1] = 255
    pixels[40:60, 20:80] = (255, 0, 0, 255)
    return save(tmp_path / "bar.png", pixels)


def test_icons_have_room_to_be_turned():
    assert icons() == ("arrow", "dots", "firefly", "fish", "taiji", "two-dots")
    for name in icons():
        found = read_creature(name, pixels=20)
        alpha = found.picture[3]
        side = alpha.shape[0]
        away = torch.arange(side) - (side - 1) / 2
        assert torch.hypot(away[:, None], away)[alpha > 0].max() <= side / 2
        assert found.name == name and found.picture.min() >= 0 and found.picture.max() <= 1
        rows, columns = (alpha > 0.03).nonzero(as_tuple=True)
        longest = max(rows.max() - rows.min(), columns.max() - columns.min()) + 1
        assert abs(longest / found.oversample - 20) <= 1


def test_clear_pixels_lend_no_colour(drawing):
    found = read_creature(drawing, pixels=30).picture
    shown = found[3] > 0
    assert found[0][shown].min() > 0.99 and found[1][shown].max() < 0.01
    assert int(shown.sum()) == pytest.approx(60 * 20, rel=0.05)  # 30 x 10 pixels, two of its own along each


def test_a_photograph_takes_a_mask(tmp_path, drawing):
    photo = save(tmp_path / "photo.jpg", np.full((50, 40, 3), 128))
    mask = np.zeros((50, 40))
    mask[10:30, 5:25] = 255
    found = read_creature(photo, mask=save(tmp_path / "mask.png", mask), pixels=10)
    assert found.name == "photo" and float(found.picture[3].sum()) == pytest.approx(400, rel=0.02)
    with pytest.raises(PicturesError, match="40 x 50, got 100 x 100: resize it"):
        read_creature(photo, mask=drawing)
    with pytest.raises(PicturesError, match=r"no alpha: erase the background .* or give a mask"):
        read_creature(photo)


def test_a_turned_photograph_is_read_as_it_is_seen(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by a quarter: 40 x 50 pixels in the file are 50 x 40
    Image.fromarray(np.full((40, 50, 3), 128, np.uint8)).save(tmp_path / "photo.jpg", exif=exif)
    mask = np.zeros((50, 40))
    mask[10:40, 5:15] = 255
    alpha = read_creature(tmp_path / "photo.jpg", mask=save(tmp_path / "mask.png", mask), pixels=15).picture[3]
    rows, columns = (alpha > 0.5).nonzero(as_tuple=True)
    assert (rows.max() - rows.min() + 1, columns.max() - columns.min() + 1) == (30, 10)


def test_deep_grey_keeps_its_shades_and_floating_point_is_refused(tmp_path, drawing):
    deep, half = tmp_path / "deep.png", tmp_path / "half.png"
    Image.fromarray(np.full((50, 50), 65535 // 4, np.uint16)).save(deep)
    Image.fromarray(np.full((50, 50), 65535 // 2, np.uint16)).save(half)
    found = read_creature(deep, mask=half, pixels=25).picture
    shown = found[3] > 0
    assert found[:3, shown].sub(0.25).abs().max() < 0.01 and found[3, shown].sub(0.5).abs().max() < 0.01
    Image.fromarray(np.full((50, 50), 0.5, np.float32)).save(tmp_path / "float.tif")
    with pytest.raises(PicturesError, match="save it with 8 or 16 bits"):
        read_creature(tmp_path / "float.tif", mask=half)


def test_a_small_drawing_is_enlarged_smoothly(tmp_path):
    pixels = np.zeros((12, 12, 4))
    pixels[2:10, 2:10] = (0, 0, 255, 255)
    pixels[4:8, 4:8, :3] = (255, 0, 0)
    red = read_creature(save(tmp_path / "small.png", pixels), pixels=40).picture[0]
    assert (red[1:] - red[:-1]).abs().max() < 0.2


def test_bad_pictures_are_refused_with_the_remedy(tmp_path, drawing):
    with pytest.raises(PicturesError, match=r"one of the icons arrow, .*: no such file"):
        read_creature("dragon")
    with pytest.raises(PicturesError, match="something to see"):
        read_creature(save(tmp_path / "clear.png", np.zeros((9, 9, 4))))
    with pytest.raises(PicturesError, match="no alpha"):
        read_creature(save(tmp_path / "full.png", np.full((9, 9, 4), 255)))
    (tmp_path / "broken.png").write_bytes(drawing.read_bytes()[:60])
    with pytest.raises(PicturesError, match="cannot read the picture"):
        read_creature(tmp_path / "broken.png")
    with pytest.raises(PicturesError, match=r"expected a picture in \.png"):
        read_creature(save(tmp_path / "bar.bmp", np.zeros((5, 5, 3))))
    with pytest.raises(PicturesError, match=r"pixels in \[3, 512\]"):
        read_creature("fish", pixels=1)
    for oversample in (0, 2.5):
        with pytest.raises(PicturesError, match=r"oversample, a whole number in \[1, 64\]"):
            read_creature("fish", oversample=oversample)
    Image.new("1", (20000, 20000)).save(tmp_path / "huge.png")
    with pytest.raises(PicturesError, match="cannot read the picture"):
        read_creature(tmp_path / "huge.png")


def test_svg_is_read_or_its_extra_is_named(tmp_path):
    path = tmp_path / "disc.svg"
    path.write_text('<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9"><circle cx="4" cy="4" r="3"/></svg>')
    try:
        import cairosvg  # noqa: F401
    except (ImportError, OSError):
        with pytest.raises(PicturesError, match=r"pip install 'eqflow\[svg\]'"):
            read_creature(path)
    else:
        assert float(read_creature(path, pixels=20).picture[3].sum()) == pytest.approx(3.14159 * 20**2, rel=0.02)
