import json
import math

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from eqflow import ops
from eqflow.cli import _infer_picture, app


def run(*words):
    return CliRunner().invoke(app, ["infer", *map(str, words)])


def normals(count, dimension, seed=0):
    return ops.normal(count, dimension, seed=seed).double()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Points of x' = -x^3 + sqrt(2 D) dW with D = 1/4 beside y' = -y; of a free Gaussian; of a relaxing one."""
    folder = tmp_path_factory.mktemp("points")
    grid = torch.linspace(-3, 3, 6001, dtype=torch.float64)
    weights = (-(grid**4)).exp().cumsum(0)
    uniform = 0.5 * (1 + torch.erf(normals(20_000, 1, seed=1)[:, 0] / math.sqrt(2)))
    x = grid[torch.searchsorted(weights / weights[-1], uniform).clamp_max(6000)]
    points = torch.stack([x, 0.5 * normals(20_000, 1, seed=2)[:, 0]], 1)
    np.savetxt(folder / "cubic.csv", points, delimiter=",", header="x,y", comments="")
    np.save(folder / "gaussian.npy", normals(4000, 2).numpy())
    rows = []
    for k, time in enumerate([0.0, 0.25, 0.5, 0.75, 1.0]):
        mean, variance = 2 * math.exp(-time), 0.5 + (0.1 - 0.5) * math.exp(-2 * time)
        cloud = mean + math.sqrt(variance) * normals(3000, 1, seed=5 + k)
        rows.append(torch.cat([torch.full((3000, 1), time), cloud], 1))
    np.savetxt(folder / "times.csv", torch.cat(rows), delimiter=",", header="hour,level", comments="")
    return folder


def test_the_equations_of_a_cloud(files):
    result = run(files / "cubic.csv", "--library", "polynomial:3", "--noise", "0.25", "--json", files / "cubic.json")
    assert result.exit_code == 0, result.output
    first, x, y, verdict = result.stdout.splitlines()
    assert first == "20,000 points of x, y"
    assert x.startswith("x' = -") and x.endswith(") x^3") and y.startswith("y' = -") and y.endswith(") y")
    assert "the points agree with the model" in verdict
    facts = json.loads((files / "cubic.json").read_text())
    assert set(facts["coefficients"]) == {"x^3 in x'", "y in y'"}
    found = facts["coefficients"]["x^3 in x'"]
    assert abs(found["value"] + 1) < 4 * found["standard_error"] < 0.2
    assert facts["p_value"] > 0.01 and facts["equations"] == [x, y]
    every = run(files / "cubic.csv", "--library", "polynomial:2+trigonometric:1", "--noise", "0.25", "--every-term")
    assert "sin(x)" in every.stdout and "x y" in every.stdout


def test_a_model_that_fails_says_so(files):
    result = run(files / "cubic.csv", "--library", "polynomial:1", "--noise", "0.25")
    assert result.exit_code == 1 and "the points contradict the model" in result.stdout


def test_what_the_points_cannot_tell(files):
    result = run(files / "gaussian.npy", "--library", "polynomial:1", "--noise", "1")
    assert result.exit_code == 0 and "degrees of freedom" not in result.stdout
    assert "not identifiable: " in result.stdout and "x2 in x1'" in result.stdout


def test_points_with_times(files):
    result = run(files / "times.csv", "--library", "polynomial:1", "--times", "hour")
    assert result.exit_code == 0, result.output
    assert "15,000 points of level at 5 times" in result.stdout
    equation, noise = result.stdout.splitlines()[1:3]
    assert equation.startswith("level' = -") and equation.endswith(" level") and 0.45 < float(noise[4:9]) < 0.55
    picked = run(files / "times.csv", "--library", "polynomial:1", "--times", "hour", "--columns", "level")
    assert picked.stdout == result.stdout
    assert "15,000 points" in run(files / "times.csv", "--library", "polynomial:1", "--times", "1").stdout


def test_lorenz(lorenz_file):
    result = run(lorenz_file, "--system", "lorenz")
    assert result.exit_code == 0, result.output
    values = dict(line.split(" = ") for line in result.stdout.splitlines()[4:8])
    assert set(values) == {"sigma", "rho", "beta", "D"}
    for name, truth in {"sigma": 10, "rho": 28, "beta": 8 / 3, "D": 10}.items():
        assert float(values[name].partition("(")[0]) == pytest.approx(truth, rel=0.1)


@pytest.fixture(scope="module")
def lorenz_file(tmp_path_factory):
    dt, chains, frames = 0.005, 1000, []
    state = 8 * normals(chains, 3, seed=3).T + torch.tensor([[0.0], [0.0], [25.0]], dtype=torch.float64)

    def drift(s):
        return torch.stack([10 * (s[1] - s[0]), s[0] * (28 - s[2]) - s[1], s[0] * s[1] - 8 / 3 * s[2]])

    for step in range(2000):
        noise = math.sqrt(20 * dt) * ops.normal(chains, 3, seed=4, step=step).double().T
        slope = drift(state)
        state = state + dt / 2 * (slope + drift(state + dt * slope + noise)) + noise
        if step >= 1000 and step % 100 == 0:
            frames.append(state.T)
    path = tmp_path_factory.mktemp("lorenz") / "lorenz.npy"
    np.save(path, torch.cat(frames).numpy())
    return path


def test_a_window(lorenz_file, tmp_path):
    """Points at x > 0 alone: cosines see the flux through the edge, bumps do not."""
    points = np.load(lorenz_file)
    np.save(tmp_path / "half.npy", points[points[:, 0] > 0])
    blind = run(tmp_path / "half.npy", "--system", "lorenz", "--noise", "10")
    assert blind.exit_code == 1 and "contradict" in blind.stdout
    inside = run(lorenz_file, "--system", "lorenz", "--noise", "10", "--window", "x1=0:")
    assert inside.exit_code == 0, inside.output
    note, *rest = inside.stdout.splitlines()
    assert "of 10,000 points lie inside the window; the others were left out" in note
    same = run(tmp_path / "half.npy", "--system", "lorenz", "--noise", "10", "--window", "x1=0:")
    assert same.stdout.splitlines() == rest
    values = dict(line.split(" = ") for line in rest[4:7])
    for name, truth in {"sigma": 10, "rho": 28, "beta": 8 / 3}.items():
        value, _, digits = values[name].strip(")").partition("(")
        error = float(digits) * 10.0 ** -len(value.partition(".")[2])
        assert abs(float(value) - truth) < 4 * error < 0.2 * truth


def test_the_picture(lorenz_file, files, tmp_path):
    picture = tmp_path / "lorenz.png"
    result = run(lorenz_file, "--system", "lorenz", "--show", picture)
    assert result.exit_code == 0 and result.stdout.splitlines()[-1] == f"wrote {picture}"
    with Image.open(picture) as image:
        assert image.width > 1000 and image.height > 400 and len(np.unique(np.asarray(image))) > 50
    again = run(lorenz_file, "--system", "lorenz", "--show", picture)
    assert again.exit_code == 1 and "add --overwrite to replace it" in again.stderr
    model = ("--library", "polynomial:3", "--noise", "0.25", "--overwrite", "--show", picture)
    assert run(files / "cubic.csv", *model).exit_code == 0


def test_what_the_picture_compares_with():
    lorenz = _infer_picture.known("lorenz")
    assert lorenz.values == {"sigma": 10.0, "rho": 28.0, "beta": 8 / 3} and "1963" in lorenz.source
    network = _infer_picture.known("gene-network").values
    assert {name for name, value in network.items() if value} == {"p: beta", "p: rho", "b: pi beta rho", "r: rho"}
    assert len(network) == 21 and _infer_picture.known(None) is None


@pytest.mark.parametrize(
    "words, code, message",
    [
        ([], 2, "expected a file of points"),
        (["cubic.csv"], 2, "expected one of --library, such as polynomial:2, and --system"),
        (["cubic.csv", "--library", "polynomial:2"], 2, "expected --noise as a number with --library"),
        (["cubic.csv", "--library", "polynomial:2", "--noise", "-1"], 2, "expected --noise as a number from 0 up"),
        (["cubic.csv", "--library", "polynomial", "--noise", "1"], 2, "write polynomial:2"),
        (["cubic.csv", "--library", "poly:2", "--noise", "1"], 2, "polynomial or trigonometric, got 'poly'"),
        (["cubic.csv", "--system", "lorentz"], 2, "did you mean lorenz?"),
        (["cubic.csv", "--system", "lorenz"], 2, "expected 3 columns for --system lorenz"),
        (["cubic.csv", "--system", "gene-network"], 2, "expected 7 columns"),
        (["times.csv", "--library", "polynomial:1", "--times", "day"], 2, "one of the columns hour, level"),
        (["cubic.csv", "--library", "polynomial:2", "--noise", "1", "--threshold", "0"], 2, "--threshold"),
        (["cubic.csv", "--library", "polynomial:2", "--noise", "1", "--window", "x=0"], 2, "NAME=LOW:HIGH"),
        (["cubic.csv", "--library", "polynomial:2", "--noise", "1", "--window", "x=a:"], 2, "NAME=LOW:HIGH"),
        (["cubic.csv", "--library", "polynomial:2", "--noise", "1", "--window", "z=0:"], 2, "over x, y, got 'z'"),
        (["cubic.csv", "--library", "polynomial:2", "--noise", "1", "--window", "x=2:1"], 2, "from low to high"),
        (["cubic.csv", "--library", "polynomial:2", "--noise", "1", "--window", "x=99:"], 2, "got none of 20,000"),
        (["cubic.csv", "--library", "polynomial:2", "--noise", "1", "--window", "x=0:.5"], 1, "smaller bandwidth"),
        (["times.csv", "--library", "polynomial:1", "--times", "hour", "--window", "level=0:"], 2, "without --times"),
        (["cubic.csv", "--library", "polynomial:2", "--noise", "1", "--bandwidth", "0"], 2, "above 0, got 0"),
        (["cubic.csv", "--library", "polynomial:2", "--noise", "1", "--show", "a.jpg"], 2, "--show to end in .png"),
        (["none.csv", "--library", "polynomial:2", "--noise", "1"], 1, "no such file"),
        (["cubic.csv", "--library", "polynomial:2", "--noise", "1", "--functions", "3"], 1, "take more test functions"),
    ],
)
def test_wrong_command_lines(files, words, code, message):
    if words:
        words = [files / words[0], *words[1:]]
    result = run(*words)
    assert result.exit_code == code and message in result.stderr
    assert result.stderr.count("\n") == 1
