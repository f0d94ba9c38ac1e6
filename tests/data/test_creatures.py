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
