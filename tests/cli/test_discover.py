import json
import math

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from eqflow import ops
from eqflow.cli import app
from eqflow.data import Recipe, generate


def run(*words):
    return CliRunner().invoke(app, ["discover", *map(str, words)])


def linear_pictures(count, *, seed, size=16):
    """du/dt = -0.3 u + 0.5 Lap u + sqrt(0.4) dW/dt in its steady state, [count, size, size]."""
    wave = 2 * torch.cos(2 * math.pi * torch.arange(size, dtype=torch.float64) / size) - 2
    deviation = (0.2 / (0.3 - 0.5 * (wave[:, None] + wave))).sqrt()
    white = ops.normal(count, size * size, seed=seed).double().view(count, size, size)
    return torch.fft.ifft2(torch.fft.fft2(white) * deviation).real


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Pictures of a linear field held up by noise, two of them constant; of a standing pattern; of nothing."""
    folder = tmp_path_factory.mktemp("pictures")
    pictures = linear_pictures(400, seed=1)
    pictures[[3, 7]] = 0.5
    np.save(folder / "linear.npy", pictures.float().numpy())
    u = linear_pictures(100, seed=2) / 3 + 1
    lap = sum(u.roll(s, a) for s in (1, -1) for a in (1, 2)) - 4 * u
    noise = 1e-4 * ops.normal(100, 256, seed=3).double().view_as(u)
    np.savez(folder / "static.npz", u=u.numpy(), v=(u - 2 * lap + noise).numpy())
    np.save(folder / "constant.npy", np.ones((9, 8, 8)))
    generate(Recipe.from_preset("wave", samples=2, size=32, steps=5), folder / "broken")
    next((folder / "broken").rglob("*.hdf5")).unlink()
    np.save(folder / "one.npy", np.random.default_rng(0).random((1, 8, 8)))
    return folder


LINEAR = ("--library", "polynomial:2+laplacian+squared-gradient", "--noise", "0.2")


def test_the_equation_of_pictures(folder):
    result = run(folder / "linear.npy", *LINEAR, "--json", folder / "linear.json", "--show", folder / "linear.png")
    assert result.exit_code == 0, result.output
    first, equation, verdict = result.stdout.splitlines()
    assert first == "398 pictures of u, 16 x 16; 2 without a pattern left out"
    assert equation.startswith("du/dt = -0.") and equation.endswith(" Δu") and " u + 0." in equation
    assert "the pictures agree with the model" in verdict
    facts = json.loads((folder / "linear.json").read_text())
    (fit,) = facts["fits"]
    assert set(fit["coefficients"]) == {"u in du/dt", "Δu in du/dt"}
    found = fit["coefficients"]["Δu in du/dt"]
    assert abs(found["value"] - 0.5) < 4 * found["standard_error"] < 0.08
    assert facts["left_out"] == 2 and facts["pictures"] == 398 and facts["dt"] is None and not facts["static"]
    with Image.open(folder / "linear.png") as picture:
        assert picture.width > 900


def test_the_equation_runs_and_keeps_the_pictures(folder):
    film = folder / "kept.gif"
    result = run(folder / "linear.npy", *LINEAR, "--simulate", "300", "--json", folder / "kept.json", "--film", film)
    assert result.exit_code == 0, result.output
    assert "means and deviations stay within 3 standard errors" in result.stdout
    facts = json.loads((folder / "kept.json").read_text())["simulation"]
    assert facts["kept"] and facts["u"]["spectrum"] > 0.9 and facts["steps"] == 300
    with Image.open(film) as picture:
        first = np.array(picture.convert("RGB"), int)
        picture.seek(50)
        # The start and every third step, and the pictures move.
        assert picture.n_frames == 101 and abs(np.array(picture.convert("RGB"), int) - first).mean() > 5
    again = run(folder / "linear.npy", *LINEAR, "--simulate", "300", "--seed", "5")
    assert again.stdout.splitlines()[:3] == result.stdout.splitlines()[:3] and again.stdout != result.stdout


def test_a_unit_and_an_unknown_noise(folder):
    words = ("--library", "polynomial:1+laplacian", "--noise", "unknown", "--unit", "u: u = -0.3")
    result = run(folder / "linear.npy", *words)
    assert result.exit_code == 0, result.output
    assert "\nnoise of u = 0." in result.stdout and "du/dt = -0.3 u + " in result.stdout
    assert "one time unit is free: u in du/dt = -0.3 sets it" in result.stdout


def test_a_missing_term_is_seen(folder):
    result = run(folder / "linear.npy", "--library", "polynomial:3", "--noise", "0.2", "--functionals", "4:2")
    assert result.exit_code == 1
    assert "the pictures contradict the model" in result.stdout and "not to be trusted" in result.stdout


def test_a_static_pattern(folder):
    rows = ("--equation", "u: u, v, lap u", "--equation", "dv/dt: u, v, lap(u)")
    result = run(folder / "static.npz", *rows)
    assert result.exit_code == 0, result.output
    assert "the pattern is static" in result.stdout and "own free scale" in result.stdout
    _, u, v, *_ = result.stdout.splitlines()
    assert u.startswith("du/dt = -u + ") and u.endswith(" Δu") and v.startswith("dv/dt = u - ")


def test_the_unit_of_a_static_pattern_and_an_answer_that_cannot_run(folder):
    rows = ("--equation", "u: u, v, lap u", "--unit", "u: lap u = 2")
    result = run(folder / "static.npz", *rows, "--simulate", "9")
    assert result.exit_code == 1 and "pictures determine none" in result.output
    assert "du/dt = 2 Δu - 1.0" in result.stdout and "the scales are set by Δu in du/dt = 2" in result.stdout


def test_a_simulation_that_grows_without_bounds_is_said_to(folder):
    words = ("--library", "u+u^3", "--unit", "u: u^3 = 1", "--simulate", "40")
    growing = run(folder / "linear.npy", *words)
    assert "left all bounds within 40 steps" in growing.stdout, growing.output


def test_images_and_formulas(folder, tmp_path):
    pictures = linear_pictures(120, seed=4)
    levels = ((pictures / 12 + 0.5).clamp(0, 1) * 65535).round().numpy().astype("uint16")
    for number, level in enumerate(levels):
        Image.fromarray(level).save(tmp_path / f"{number:03}.png")
    noise = f"{0.2 / 144:.8g}"
    result = run(tmp_path, "--library", "u - 0.5+lap_u", "--noise", noise, "--names", "u", "--functionals", "2:1")
    assert result.exit_code == 0, result.output
    assert "120 pictures of u" in result.stdout and "u - 0.5" in result.stdout and "lap_u" in result.stdout


@pytest.mark.parametrize(
    "words, message, code",
    [
        ([], "expected a dataset or pictures", 2),
        (["{}/none.npy"], "no such file", 1),
        (["{}/one.npy"], "expected many pictures, got one", 1),
        (["{}/constant.npy"], "constant ones only", 1),
        (["{}/linear.npy", "-n", "5"], "more pictures than unknowns, got 4", 1),
        (["{}/linear.npy", "-n", "0"], "--samples from 1 up", 2),
        (["{}/linear.npy", "--library", "polynomials:3"], "did you mean polynomial", 2),
        (["{}/linear.npy", "--library", "polynomial"], "write polynomial:3", 2),
        (["{}/linear.npy", "--library", "polynomial:1+2*u", "--noise", "1"], "depend on each other", 1),
        (["{}/linear.npy", "--library", "polynomial:2+u*u"], "u^2 in du/dt, u*u in du/dt depend on each other", 1),
        (["{}/linear.npy", "--library", "polynomial:1+log(u)"], "infinite ones of log(u) in du/dt", 1),
        (["{}/linear.npy", "--show", "a.pdf"], "expected --show FILE.png", 2),
        (["{}/linear.npy", *LINEAR, "--json", "{}/one.npy/a.json"], "cannot write", 1),
        (["{}/broken"], "is not complete", 1),
        (["{}/linear.npy", "--spacing", "0"], "--spacing to be a finite number above 0", 2),
        (["{}/linear.npy", "--step", "continuous:2"], "only euler has a size", 2),
        (["{}/linear.npy", *LINEAR, "--functionals", "4:2:3"], "--functionals as N or N:M", 2),
        (["{}/linear.npy", *LINEAR, "--functionals", ""], "whole number from 1 up", 2),
        (["{}/linear.npy", *LINEAR, "--film", "a.gif"], "expected --simulate N with --film", 2),
        (["{}/linear.npy", *LINEAR, "--simulate", "9", "--film", "a.png"], "expected --film FILE.gif or FILE.mp4", 2),
        (["{}/linear.npy", *LINEAR, "--simulate", "9", "--film", "no/a.gif"], "a folder that exists", 2),
        (["{}/linear.npy", *LINEAR, "--crop", "--simulate", "9"], "whole, periodic pictures for --simulate", 2),
        (["{}/linear.npy", "--equation", "w: u"], "a channel of u", 2),
        (["{}/linear.npy", "--equation", "u: u, q"], "got 'q'", 1),
        (["{}/linear.npy", "--unit", "u: u"], "write 'u: u v^2 = -1'", 2),
        (["{}/linear.npy", "--unit", "u: u = inf"], "a finite number for every coefficient of the unit", 1),
        (["{}/linear.npy", "--noise", "much"], "--noise as a number", 2),
        (["{}/linear.npy", "--step", "euler:0"], "a positive step", 2),
        (["{}/linear.npy", "--stencil", "7-point"], "--stencil to be 5-point", 2),
        (["{}/linear.npy", "--names", "a,b"], "--names of 1 channels", 2),
        (["{}/linear.npy", *LINEAR, "--functionals", "1:0"], "whole number from 1 up", 2),
        (["{}/static.npz", "--library", "polynomial:1+laplacian", "--simulate", "9"], "pictures determine none", 1),
    ],
)
def test_errors_say_what_to_do(folder, words, message, code):
    result = run(*(word.format(folder) for word in words))
    assert result.exit_code == code, result.output
    assert message in result.output and "Traceback" not in result.output


def test_a_crop_is_drawn_without_its_edge(folder, tmp_path):
    result = run(folder / "linear.npy", *LINEAR, "--crop", "--show", tmp_path / "crop.png")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "crop.png").stat().st_size > 1000


def test_help_has_examples():
    result = CliRunner().invoke(app, ["discover", "--help"])
    assert result.exit_code == 0 and "eqflow discover wave" in result.stdout
