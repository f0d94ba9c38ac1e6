import math

import pytest
import torch

from eqflow import ops
from eqflow.fokker_planck import fields
from eqflow.fokker_planck.fields import Grid

SIZE = 48
PHASE = 2 * math.pi * torch.arange(SIZE, dtype=torch.float64) / SIZE
GRID = Grid(spacing=2 * math.pi / SIZE)


def waves():
    """u = sin(x) cos(y), v = cos(x), with x along the last axis: [1, 2, size, size]."""
    u = PHASE.sin() * PHASE.cos()[:, None]
    return torch.stack([u, PHASE.cos().expand(SIZE, SIZE)])[None]


def test_derivatives_are_those_of_waves():
    """To second order in the spacing, 2 pi / 48."""
    u, v = waves()[0]
    sine, cosine = PHASE.sin(), PHASE.cos()
    library = (
        fields.laplacian("u v", 2)
        + fields.bilaplacian("u v")
        + fields.squared_gradient("u v")
        + fields.advection("u v").only(["u_x", "u_y", "v u_x"])
    )
    found = dict(zip(library.names, library(waves(), GRID)[0], strict=True))
    slope_x, slope_y = cosine * cosine[:, None], -sine * sine[:, None]
    expected = {
        "Δu": -2 * u,
        "Δv": -v,
        "Δ²u": 4 * u,
        "Δ²v": v,
        "Δ(v^2)": 2 * sine.square() - 2 * v * v,
        "|∇u|²": slope_x**2 + slope_y**2,
        "|∇v|²": sine.square().expand(SIZE, SIZE),
        "u_x": slope_x,
        "u_y": slope_y,
        "v u_x": v * slope_x,
    }
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=0.02, msg=lambda text, name=name: f"{name}: {text}")


def test_formulas_are_the_terms_they_spell(noise_pictures):
    formulas = fields.expressed("u v", ["u*v^2", "lap_v", "v*u_x", "u_y", "u/(1 + v^2)"])
    u, v = noise_pictures.unbind(1)
    terms = fields.polynomial("u v", 3) + fields.laplacian("u v") + fields.advection("u v")
    grid = Grid("9-point", spacing=0.5)
    expected = terms.only(["u v^2", "Δv", "v u_x", "u_y"])(noise_pictures, grid)
    found = formulas(noise_pictures, grid)
    torch.testing.assert_close(found[:, :4], expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found[:, 4], u / (1 + v * v), rtol=1e-12, atol=0)


@pytest.mark.parametrize("periodic", [True, False])
def test_formulas_have_the_moments_of_the_terms(noise_pictures, periodic):
    """The operator and the way for formulas give the same numbers, whatever the order of the terms."""
    terms = (fields.polynomial("u v", 2) + fields.laplacian("u v") + fields.advection("u v")).only(
        ["u v", "Δv", "v u_x"]
    )
    mixed = terms.only(["u v"]) + fields.expressed("u v", {"A": "lap_v"}) + terms.only(["v u_x"])
    functionals = ops.Functionals.up_to(2, 3, 2)
    options = {"grid": Grid(periodic=periodic)}
    one = fields.field_form(noise_pictures, fields.field_model(terms), functionals, **options)
    other = fields.field_form(noise_pictures, fields.field_model(mixed), functionals, **options)
    torch.testing.assert_close(one.matrix, other.matrix, rtol=1e-11, atol=1e-12)


def test_names_and_mistakes():
    library = fields.polynomial("u v", 3) + fields.laplacian("u v")
    assert len(library) == 12 and library.reach == 1 and fields.bilaplacian("u").reach == 2
    with pytest.raises(ValueError, match=r"among 1, u, .*, got w"):
        library.only(["u", "w"])
    with pytest.raises(ValueError, match="different terms in the two libraries, but both have Δu, Δv"):
        library + fields.laplacian("u v")
    with pytest.raises(ValueError, match="same channels"):
        library + fields.laplacian("u")
    with pytest.raises(ValueError, match="no derivative's name, got u_x"):
        fields.expressed("u u_x", ["u"])
    with pytest.raises(ValueError, match="a stencil among 5-point, 9-point"):
        Grid("7-point")
