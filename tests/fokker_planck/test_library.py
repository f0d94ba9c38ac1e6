import math

import pytest
import torch

from eqflow.fokker_planck import Library, expressed, hill, polynomial, trigonometric
from eqflow.fokker_planck.expressions import parse

POINTS = torch.tensor([[0.5, 2.0, 3.0], [1.5, 0.25, 4.0]], dtype=torch.float64)
X, Y, Z = POINTS.T


def test_the_terms_of_a_polynomial():
    library = polynomial("x y z", 2)
    assert library.names == ("1", "x", "y", "z", "x^2", "x y", "x z", "y^2", "y z", "z^2")
    expected = [torch.ones(2), X, Y, Z, X * X, X * Y, X * Z, Y * Y, Y * Z, Z * Z]
    torch.testing.assert_close(library(POINTS), torch.stack(expected, 1), check_dtype=False)
    assert len(polynomial("x y z", 4, constant=False)) == math.comb(7, 3) - 1


def test_every_term_is_what_its_name_says():
    formulas = (
        polynomial("x y z", 3)
        + trigonometric("x y z", 2)
        + hill("x y z", power=3, constant=2.0)
        + hill("x y z", power=2, repress=True, among="x z").products(2)
    )
    texts = [
        name.replace(" 1/", "*1/").replace("2 x", "2*x").replace("2 y", "2*y").replace("2 z", "2*z")
        for name in formulas.names
    ]
    written = parse([text.replace(" ", "*") if "(" not in text else text for text in texts], "xyz")
    torch.testing.assert_close(formulas(POINTS), written(POINTS, 0.0), rtol=1e-12, atol=0)


def test_formulas():
    function = parse(["t", "2", "x/(1 + y^2)", "exp(-x)*sin(2*y) - sqrt(z)"], ["x", "y", "z"])
    expected = [torch.full((2,), 7.0), torch.full((2,), 2.0), X / (1 + Y**2), (-X).exp() * (2 * Y).sin() - Z.sqrt()]
    torch.testing.assert_close(function(POINTS, 7.0), torch.stack([e.double() for e in expected], 1))
    assert function(POINTS.float(), 7.0).dtype == torch.float32


def test_a_period_and_a_name():
    assert trigonometric("angle", period=1.0).names == ("sin(6.28319 angle)", "cos(6.28319 angle)")
    torch.testing.assert_close(trigonometric("a", period=4.0)(torch.ones(1, 1)), torch.tensor([[1.0, 0.0]]))
    assert expressed("x", {"drive": "sin(t)"}).names == ("drive",)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: polynomial("x y", 0), "degree from 1 up, got 0"),
        (lambda: polynomial("x x", 1), "different names"),
        (lambda: polynomial("", 1), "at least one"),
        (lambda: polynomial("t", 1), "not 't', the time"),
        (lambda: polynomial(["x", "sin"], 1), "plain name such as 'x'.* got 'sin'"),
        (lambda: trigonometric("x", 0), "harmonics from 1 up"),
        (lambda: hill("x", power=-1), "positive power"),
        (lambda: hill("x", among="y"), "variables of"),
        (lambda: polynomial("x", 1) + polynomial("x y", 1), "same variables"),
        (lambda: polynomial("x", 1) + polynomial("x", 2), "both have 1, x"),
        (lambda: expressed("x", []), "at least one term"),
        (lambda: expressed("x", ["x +"]), "expected a formula such as .*'x \\+'"),
        (lambda: expressed("x", ["q*x"]), "expected the variables x and t in 'q\\*x', got 'q'"),
        (lambda: expressed("x", ["gamma(x)"]), "one of the functions sin"),
        (lambda: expressed("x", ["__import__('os').getcwd()"]), "one of the functions"),
        (lambda: expressed("x", ["x.real"]), "arithmetic, functions and numbers only"),
        (lambda: expressed("x", ["[x]"]), "arithmetic, functions and numbers only"),
        (lambda: expressed("x", ["'x'"]), "arithmetic, functions and numbers only"),
        (lambda: expressed("x", ["x + 1/0"]), "finite values"),
    ],
)
def test_wrong_arguments_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_library_of_your_own():
    radius = Library(("x", "y", "z"), ("r",), lambda points, time: points.norm(dim=1, keepdim=True))
    assert (polynomial("x y z", 1) + radius)(POINTS).shape == (2, 5)
