import math

import pytest
import torch

from eqflow import ops
from eqflow.fokker_planck import fields
from eqflow.fokker_planck.fields import Grid, discover, field_model

DOUBLE = torch.float64


def turning(count, *, seed, size=8):
    """Every cell turns at the rate 1 on a circle of its own radius: [count, 2, size, size] at independent phases."""
    uniform = torch.rand(count, 2, size, size, dtype=DOUBLE, generator=torch.Generator().manual_seed(seed))
    radius, phase = 0.5 + uniform[:, 0], 2 * math.pi * uniform[:, 1]
    return torch.stack([radius * phase.cos(), radius * phase.sin()], 1)


def standing(count, *, seed, size=16):
    """Smooth u beside v = u - 2 Lap u with a little noise: a relation that holds in every cell."""
    white = torch.randn(count, 1, size, size, dtype=DOUBLE, generator=torch.Generator().manual_seed(seed))
    for _ in range(3):
        white = white + 0.2 * Grid().laplacian(white)
    u = white + 0.3 * white**2
    noise = 1e-4 * torch.randn(u.shape, dtype=DOUBLE, generator=torch.Generator().manual_seed(seed + 1))
    return torch.cat([u, u - 2 * Grid().laplacian(u) + noise], 1)


def test_turning_cells_are_found_up_to_the_unit_of_time():
    """u' = -w v, v' = w u: the sign of w is free too, as nothing smooths."""
    found = discover(turning(300, seed=0), field_model(fields.polynomial("u v", 1)), ops.Functionals.up_to(2, 4))
    (fit,) = found.fits
    assert found.identifiable.unit == {"v in du/dt": 1.0} and fit.names == ("u in dv/dt",)
    assert fit.value("u in dv/dt") == pytest.approx(-1, abs=4 * float(fit.standard_errors[0]))
    assert found.equations.splitlines()[0] == "du/dt = v" and "dv/dt = -" in found.equations
    assert fit.p_value > 1e-3 and "one time unit is free: v in du/dt = 1 sets it" in str(found)
    assert not found.identifiable.still and not found.identifiable.blind.blind
    state = turning(2, seed=9)
    torch.testing.assert_close(found.drift(state), torch.stack([state[:, 1], -state[:, 0]], 1), rtol=0, atol=0.1)


def test_a_wrong_model_is_contradicted():
    """Radii that grow with the phase turn at another rate than the model allows."""
    pictures = turning(300, seed=1)
    pictures[:, 0] += 0.1 * pictures[:, 1] ** 2
    found = discover(pictures, field_model(fields.polynomial("u v", 1)), ops.Functionals.up_to(2, 4))
    assert found.fits[0].p_value < 1e-10 and "the pictures contradict the model" in found.verdict


def test_a_standing_pattern_is_named_and_each_equation_is_right_up_to_its_scale():
    library = fields.polynomial("u v", 1) + fields.laplacian("u v")
    rows = {"u": library.only(["u", "v", "Δu"]), "v": library.only(["1", "u", "v", "Δu"])}
    found = discover(standing(100, seed=2), field_model(rows))
    assert found.identifiable.still and found.identifiable.relations == (1, 1)
    assert "each equation has its own free scale" in str(found)
    for row, fit in zip("uv", found.fits, strict=True):
        values = {name: found.coefficients[place] for place, name in enumerate(found.model.names)}
        scale = values[f"v in d{row}/dt"]
        assert values[f"u in d{row}/dt"] / scale == pytest.approx(-1, rel=1e-3)
        assert values[f"Δu in d{row}/dt"] / scale == pytest.approx(2, rel=1e-3)
        assert fit.equations.startswith(f"d{row}/dt = ")
    assert abs(values["1 in dv/dt"]) < 1e-3


def test_derivatives_that_resemble_each_other_are_no_standing_pattern():
    """With a large mean Lap u^2 is nearly 2 mean(u) Lap u, which says nothing about the terms without derivatives."""
    pictures = 5 + 0.1 * standing(100, seed=5)[:, :1]
    library = fields.polynomial("u", 1) + fields.laplacian("u", 2)
    assert discover(pictures, field_model(library, noise=1.0)).identifiable.relations == (0,)


def test_two_relations_in_every_cell_determine_no_equation():
    library = fields.polynomial("u v w", 1) + fields.laplacian("u v w")
    two = standing(100, seed=3)
    three = torch.cat([two, two[:, :1] + Grid().laplacian(two[:, 1:])], 1)
    found = discover(three, field_model(library), ops.Functionals.up_to(3, 3, 1))
    assert found.identifiable.relations == (2, 2, 2) and not found.fits and not found.coefficients.any()
    assert "2 relations hold in every cell" in str(found) and "say which terms stand in which equation" in str(found)


def test_noise_moves_every_cell(linear):
    """A steady state held up by noise is not static."""
    library = fields.polynomial("u", 2) + fields.laplacian("u")
    found = discover(linear.sample(200, seed=8).float().double(), field_model(library, noise=linear.noise))
    assert not found.identifiable.still and found.identifiable.unit == {}
    assert found.fits[0].names == ("u in du/dt", "Δu in du/dt")


def test_progress_is_told(linear):
    seen = []
    model = field_model(fields.polynomial("u", 1).only(["u"]), noise=linear.noise)
    discover(linear.sample(30, seed=8), model, dt=0.1, passes=3, on_progress=lambda *place: seen.append(place))
    assert seen[0] == (0, 30) and max(number for number, _ in seen) in (1, 2)


@pytest.mark.parametrize(
    "count, library, options, message",
    [
        (5, fields.polynomial("u v", 3), {}, "more pictures than unknowns, got 5 for 20"),
        (
            90,
            fields.polynomial("u v", 3),
            {"functionals": ops.Functionals.up_to(2, 2)},
            "functionals as unknowns or more",
        ),
        (90, fields.polynomial("u v", 1), {"dt": 1.0, "passes": 1}, "passes from 2 up .* got 1"),
        (90, fields.polynomial("u v", 1), {"unit": {"w in du/dt": 1.0}}, "some of the unknowns .* got w in du/dt"),
        (90, fields.polynomial("u v", 1) + fields.expressed("u v", ["2*u"]), {"unit": {"v in du/dt": 1.0}}, "depend"),
        (90, fields.polynomial("u v", 1) + fields.expressed("u v", ["2*u"]), {}, "u in du/dt, 2.u in du/dt depend on"),
    ],
)
def test_what_cannot_be_determined_is_refused(count, library, options, message):
    with pytest.raises(ValueError, match=message):
        discover(turning(count, seed=4), field_model(library), **options)
