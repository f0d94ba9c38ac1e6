from dataclasses import replace

import pytest
import torch

from eqflow import ops
from eqflow.fokker_planck import eliminate, estimate, fields
from eqflow.fokker_planck.fields import Grid, field_form, field_model
from eqflow.fokker_planck.fields.pictures import living

LIBRARY = fields.polynomial("u v", 2) + fields.laplacian("u v")


def functional_values(state, functionals, grid):
    """Their definition, [batch, functionals]."""

    def monomial(powers):
        return (state[:, 0] ** powers[0]) * (state[:, 1] ** powers[1])

    means = [monomial(powers).mean((1, 2)) for powers in functionals.monomials]
    means += [(monomial(g) * grid.laplacian(monomial(h))).mean((1, 2)) for g, h in functionals.pairs]
    return torch.stack(means, 1)


@pytest.mark.parametrize("grid", [Grid(), Grid("9-point", spacing=1.3)])
def test_the_path_of_a_map_is_exact_for_functionals_of_degree_four(noise_pictures, grid):
    """matrix theta - target = (phi(x + f dt) - phi(x)) / dt for every picture, however large the step."""
    model, functionals = field_model(LIBRARY), ops.Functionals.up_to(2, 4, 2)
    theta = torch.randn(len(model.names), dtype=torch.float64, generator=torch.Generator().manual_seed(1)) / 10
    form = field_form(noise_pictures, model, functionals, grid=grid, dt=0.8, coefficients=theta)
    after = noise_pictures + 0.8 * model.drift(noise_pictures, theta, grid)
    change = functional_values(after, functionals, grid) - functional_values(noise_pictures, functionals, grid)
    torch.testing.assert_close(form.matrix @ theta - form.target, change / 0.8, rtol=1e-9, atol=1e-11)
    flow = field_form(noise_pictures, model, functionals, grid=grid)
    assert (flow.matrix @ theta - change / 0.8).abs().max() > 0.01


def test_the_matrix_is_the_derivative_of_the_path(noise_pictures):
    model, functionals = field_model(LIBRARY), ops.Functionals.up_to(2, 4, 2)
    theta = torch.ones(len(model.names), dtype=torch.float64) / 10
    form = field_form(noise_pictures, model, functionals, dt=0.8, coefficients=theta)
    for place in (0, 4, 7, len(theta) - 1):
        ends = []
        for sign in (1, -1):
            moved = theta.clone()
            moved[place] += sign * 1e-5
            after = noise_pictures + 0.8 * model.drift(noise_pictures, moved, Grid())
            ends.append(functional_values(after, functionals, Grid()) / 0.8)
        torch.testing.assert_close(form.matrix[:, :, place], (ends[0] - ends[1]) / 2e-5, rtol=1e-6, atol=1e-8)


def test_a_small_step_of_the_map_is_the_flow(noise_pictures):
    model, functionals = field_model(LIBRARY), ops.Functionals.up_to(2, 6, 3)
    theta = torch.ones(len(model.names), dtype=torch.float64) / 10
    flow = field_form(noise_pictures, model, functionals).matrix @ theta
    gaps = []
    for dt in (0.1, 0.05):
        form = field_form(noise_pictures, model, functionals, dt=dt, coefficients=theta)
        gaps.append(float((form.matrix @ theta - form.target - flow).norm()))
    assert gaps[0] / gaps[1] == pytest.approx(2, rel=0.1)


def test_the_linear_field_is_found_with_calibrated_errors(linear):
    """du/dt = -0.3 u + 0.5 Lap u + sqrt(0.4) dW/dt: 40 sets of 100 pictures of 16 x 16."""
    library = (fields.polynomial("u", 1) + fields.laplacian("u")).only(["u", "Δu"])
    model, truth = field_model(library, noise=linear.noise), torch.tensor([-0.3, 0.5], dtype=torch.float64)
    scores = []
    for seed in range(40):
        form = field_form(linear.sample(100, seed=seed), model, ops.Functionals.up_to(1, 2, 1))
        fit = estimate(form)
        scores.append((fit.coefficients - truth) / fit.standard_errors)
    scores = torch.stack(scores)
    assert scores.mean(0).abs().max() < 0.6 and 0.8 < scores.square().mean().sqrt() < 1.3
    assert fit.standard_errors.max() < 0.03


def test_elimination_finds_the_linear_field(linear):
    library = fields.polynomial("u", 3) + fields.laplacian("u") + fields.squared_gradient("u")
    form = field_form(linear.sample(400, seed=9), field_model(library, noise=linear.noise))
    fit = eliminate(form, cut=1e-8)
    assert fit.names == ("u in du/dt", "Δu in du/dt")
    assert fit.value("u in du/dt") == pytest.approx(-0.3, rel=0.03)
    assert fit.value("Δu in du/dt") == pytest.approx(0.5, rel=0.03)
    assert fit.p_value > 1e-3 and "the pictures agree with the model" in fit.verdict


def test_the_noise_can_be_the_unknown(linear):
    """With the drift's first coefficient fixed the noise is found, in its unit of time."""
    library = (fields.polynomial("u", 1) + fields.laplacian("u")).only(["u", "Δu"])
    found = fields.discover(linear.sample(300, seed=3), field_model(library, noise=None), unit={"u in du/dt": -0.3})
    (fit,) = found.fits
    assert fit.names == ("Δu in du/dt", "noise of u")
    errors = fit.coefficients - torch.tensor([0.5, 0.2])
    assert (errors.abs() < 3 * fit.standard_errors).all() and fit.standard_errors.max() < 0.03
    assert found.equations.startswith("du/dt = -0.3 u + 0.5") and "\nnoise of u = 0.2" in found.equations


def test_the_euler_map_of_the_linear_field(linear):
    """At dt 0.25 the flow's conditions are tens of standard errors off, the map's are right."""
    library = (fields.polynomial("u", 1) + fields.laplacian("u")).only(["u", "Δu"])
    pictures = linear.sample(400, seed=4, dt=0.25)
    model = field_model(library, noise=linear.noise)
    found = [fields.discover(pictures, model, ops.Functionals.up_to(1, 2, 1), dt=dt).fits[0] for dt in (None, 0.25)]
    truth = torch.tensor([-0.3, 0.5])
    scores = [((fit.coefficients - truth) / fit.standard_errors).abs() for fit in found]
    assert scores[0].min() > 10 and scores[1].max() < 3
    assert found[1].standard_errors.max() < 0.02


def test_a_part_of_the_picture_is_enough(linear):
    """Means over the inside of a crop: unbiased, as every place is like every other."""
    library = (fields.polynomial("u", 1) + fields.laplacian("u")).only(["u", "Δu"])
    crops = linear.sample(600, seed=6, size=32)[..., 4:24, 5:25]
    model, few = field_model(library, noise=linear.noise), ops.Functionals.up_to(1, 2, 1)
    fit = estimate(field_form(crops, model, few, grid=Grid(periodic=False)))
    assert ((fit.coefficients - torch.tensor([-0.3, 0.5])).abs() < 4 * fit.standard_errors).all()
    wrapped = estimate(field_form(crops, model, few))
    assert abs(wrapped.value("Δu in du/dt") - 0.5) > 5 * float(wrapped.standard_errors[1])


def test_pictures_come_in_any_parts_and_precision(linear):
    pictures = linear.sample(30, seed=2)
    model = field_model(fields.polynomial("u", 2) + fields.laplacian("u"), noise=[None])
    whole = field_form(pictures, model)
    parts = field_form([pictures[:7], pictures[7:]], model)
    assert torch.equal(whole.matrix, parts.matrix)
    first, second = whole.halves()
    assert torch.equal(torch.cat([first.matrix, second.matrix]), torch.cat([whole.matrix[::2], whole.matrix[1::2]]))
    single = field_form(pictures.float(), model)
    torch.testing.assert_close(single.matrix, whole.matrix, rtol=1e-4, atol=1e-5)


def test_ranks_share_the_pictures(linear):
    """Two ranks, one after the other, with the sums of both: the same means and weights as alone."""
    pictures, model = linear.sample(20, seed=7), field_model(fields.polynomial("u", 2), noise=0.1)
    whole, theta = field_form(pictures, model), torch.tensor([0.1, -1.0, 0.2], dtype=torch.float64)
    parts = [field_form(half, model) for half in (pictures[:8], pictures[8:])]
    for what in (lambda form: form.means.matrix, lambda form: form.covariance(theta)):
        sums: list[torch.Tensor] = []
        for part in parts:
            what(replace(part, combine=lambda flat, sums=sums: sums.append(flat.clone())))
        joint = what(replace(parts[0], combine=lambda flat, sums=sums: flat.copy_(sum(sums))))
        torch.testing.assert_close(joint, what(whole), rtol=1e-12, atol=1e-15)


def test_constant_pictures_are_dead():
    pictures = torch.rand(4, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    pictures[1] = 0.5
    pictures[2, 1] = 1e-4 * pictures[2, 1]
    assert living(pictures).tolist() == [True, False, False, True]


@pytest.mark.parametrize(
    "pictures, error, message",
    [
        (torch.rand(5, 2, 8, 8), ValueError, r"pictures \[batch, 1, height, width\].* got \[5, 2, 8, 8\]"),
        (torch.rand(5, 8, 8), ValueError, r"got \[5, 8, 8\]"),
        (iter([torch.rand(5, 1, 8, 8)]), TypeError, "read several times, got list_iterator"),
        (torch.full((5, 1, 8, 8), torch.nan), ValueError, "picture 0 has NaN"),
    ],
)
def test_what_is_no_picture_is_refused(pictures, error, message):
    with pytest.raises(error, match=message):
        field_form(pictures, field_model(fields.polynomial("u", 1), noise=0.1))


def test_models_are_checked():
    library = fields.polynomial("u v", 1)
    with pytest.raises(ValueError, match="libraries of u, v for these channels, got w"):
        field_model({"w": library})
    with pytest.raises(ValueError, match="noise from 0 up, or None, for each of u, v"):
        field_model(library, noise=[0.1])
    assert field_model({"v": library}, noise=[None, 0.1]).names[-1] == "noise of u"
