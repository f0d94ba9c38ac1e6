import pytest
import torch

from eqflow.fokker_planck import from_library, parametric, polynomial
from eqflow.fokker_planck.layout import Layout, with_error

DOUBLE = torch.float64
POINTS = torch.tensor([[1.0, 2.0, 3.0], [-1.0, 0.5, 20.0]], dtype=DOUBLE)


def test_the_lorenz_drift_three_times(lorenz):
    x, y, z = POINTS.T
    expected = torch.stack([10 * (y - x), x * (28 - z) - y, x * y - 8 / 3 * z], 1)
    torch.testing.assert_close(lorenz.model.drift(POINTS, lorenz.truth), expected)
    by_functions = parametric(
        "x y z",
        {"sigma": {"x": lambda p: p[:, 1] - p[:, 0]}, "rho": {"y": lambda p: p[:, 0]}, "beta": {"z": "-z"}},
        known=lambda p: torch.stack([0 * p[:, 0], -p[:, 0] * p[:, 2] - p[:, 1], p[:, 0] * p[:, 1]], 1),
        diffusion=10.0,
    )
    torch.testing.assert_close(by_functions.drift(POINTS, lorenz.truth), expected)
    library = from_library(polynomial("x y z", 2), diffusion=10.0)
    truth = dict.fromkeys(library.names, 0.0)
    truth |= {
        "x in x'": -10,
        "y in x'": 10,
        "x in y'": 28,
        "y in y'": -1,
        "x z in y'": -1,
        "z in z'": -8 / 3,
        "x y in z'": 1,
    }
    assert len(truth) == 30
    torch.testing.assert_close(library.drift(POINTS, torch.tensor(list(truth.values()), dtype=DOUBLE)), expected)
    known = lorenz.model.drift(POINTS, lorenz.truth) - lorenz.model.drift(POINTS, lorenz.truth, homogeneous=True)
    torch.testing.assert_close(known, torch.stack([0 * x, -x * z - y, x * y], 1))


def test_libraries_by_row():
    model = from_library({"x": polynomial("x y", 1), "y": polynomial("x y", 2, constant=False)}, diffusion=1.0)
    assert model.names[:3] == ("1 in x'", "x in x'", "y in x'") and len(model.names) == 3 + 5
    theta = torch.arange(8.0, dtype=DOUBLE)
    drift = model.drift(torch.tensor([[2.0, 3.0]], dtype=DOUBLE), theta)
    assert drift.tolist() == [[2 + 2 * 3, 3 * 2 + 4 * 3 + 5 * 4 + 6 * 6 + 7 * 9]]


def test_diffusions():
    def at(model, *values):
        return model.diffusion_at(POINTS[:, :2], torch.tensor(values, dtype=DOUBLE))

    unknown = {"k": {"x": "-x"}}
    eye = torch.eye(2, dtype=DOUBLE)
    assert torch.equal(at(parametric("x y", unknown, diffusion=3.0), 1.0), 3 * eye)
    assert torch.equal(
        at(parametric("x y", unknown, diffusion=torch.tensor([1.0, 2.0])), 1.0),
        torch.diag(torch.tensor([1.0, 2.0], dtype=DOUBLE)),
    )
    assert torch.equal(at(parametric("x y", unknown, unknown_diffusion="isotropic"), 1.0, 4.0), 4 * eye)
    symmetric = parametric("x y", unknown, unknown_diffusion="symmetric", diffusion=1.0)
    assert symmetric.names == ("k", "D_x", "D_y", "D_xy")
    assert at(symmetric, 1.0, 1.0, 2.0, 0.5).tolist() == [[2.0, 0.5], [0.5, 3.0]]
    local = parametric("x y", unknown, unknown_diffusion={"a": lambda p: p[:, 0, None, None].square() * eye})
    assert at(local, 1.0, 2.0).tolist() == [[[2.0, 0.0], [0.0, 2.0]]] * 2
    assert parametric("x y", unknown).diffusion_at(POINTS, torch.ones(1)) is None


def test_numbers_with_errors():
    assert with_error(-10.0123, 0.0312) == "-10.01(3)"
    assert with_error(27.9914, 0.0763) == "27.99(8)"
    assert with_error(1.0111, 0.0151) == "1.011(15)"
    assert with_error(0.0, 2.0) == "0(2)"
    assert with_error(1234.5, 130.0) == "1230(130)"
    assert with_error(0.99999, 0.00096) == "1.0000(10)"
    assert with_error(3.0, 0.0) == "3" and with_error(3.25, float("nan")) == "3.25"


def test_equations_are_written():
    layout = Layout(
        ("x'", "y'", "z'"),
        {"y'": "-x*z"},
        {"a": ("x'", "1"), "b": ("x'", "y z"), "c": ("z'", "x")},
        {"rho": {"y'": "x - y"}},
    )
    text = layout.write(("rho", "a", "b"), torch.tensor([28.0, -1.0, -2.0]), torch.tensor([0.1, 0.02, 0.3]))
    assert text.splitlines() == ["x' = -1.00(2) - 2.0(3) y z", "y' = -x*z + rho (x - y)", "z' = 0", "rho = 28.00(10)"]


def test_equations_are_written_with_known_values():
    layout = Layout(
        ("x'", "y'"),
        {"y'": "-x*z"},
        {"a": ("x'", "1"), "b": ("x'", "y z"), "c": ("y'", "x")},
        {"rho": {"y'": "x - y"}},
    )
    found = layout.fixing({"a": 1.0, "b": -1.0, "rho": 28.0})
    text = found.write(("c",), torch.tensor([2.0]), torch.tensor([0.1])).splitlines()
    assert text == ["x' = 1 - y z", "y' = -x*z + 28 (x - y) + 2.00(10) x"]
    assert found.only("x'").write((), torch.tensor([]), torch.tensor([])) == "x' = 1 - y z"
    assert layout.fixing({"c": 0.0}).write((), torch.tensor([]), torch.tensor([])).splitlines()[1] == "y' = -x*z"


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: parametric("x y", {"a": {"q": "x"}}), "the rows of the unknown a among x, y, got q"),
        (lambda: parametric("x", {}), "at least one unknown"),
        (lambda: parametric("x", {"D": {"x": "x"}}, unknown_diffusion="isotropic"), "with different names"),
        (lambda: parametric("x y", {"a": {"x": "x"}}, diffusion=torch.zeros(3)), "symmetric 2 x 2 matrix, got"),
        (lambda: parametric("x", {"a": {"x": "x"}}, diffusion=-1.0), "without negative directions"),
        (lambda: parametric("x", {"a": {"x": "x"}}, unknown_diffusion="any"), "'symmetric' or a dict, got 'any'"),
        (lambda: parametric("x", {"a": {"x": "x"}}, known={"y": "x"}), "rows of the known drift among x, got y"),
        (lambda: from_library({}), "at least one coordinate, got none"),
        (lambda: from_library({"x": polynomial("x y", 1), "y": polynomial("x z", 1)}), "same variables"),
    ],
)
def test_wrong_arguments_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
