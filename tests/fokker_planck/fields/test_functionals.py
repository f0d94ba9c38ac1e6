import pytest
import torch

from eqflow import ops
from eqflow.fokker_planck.fields import Grid, enough
from eqflow.fokker_planck.fields.functionals import gradients, noise_moments

FUNCTIONALS = ops.Functionals.up_to(2, 4, 3)
GRIDS = [Grid(), Grid("9-point", spacing=0.7)]


def values(state, functionals, grid):
    """What the functionals are of one picture [channels, height, width]: their definition, summed up over the cells."""

    def monomial(powers):
        return (state[0] ** powers[0]) * (state[1] ** powers[1])

    means = [monomial(powers).sum() for powers in functionals.monomials]
    means += [(monomial(g) * grid.laplacian(monomial(h))).sum() for g, h in functionals.pairs]
    return torch.stack(means)


@pytest.mark.parametrize("grid", GRIDS)
def test_gradients_are_those_of_the_definition(noise_pictures, grid):
    expected = torch.func.jacrev(lambda x: values(x, FUNCTIONALS, grid))(noise_pictures[1])
    torch.testing.assert_close(gradients(noise_pictures, FUNCTIONALS, grid)[1], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("grid", GRIDS)
def test_noise_moments_are_the_trace_of_the_hessian(noise_pictures, grid):
    functionals, picture = ops.Functionals.up_to(2, 4, 2), noise_pictures[0, :, :3, :3].contiguous()
    hessian = torch.func.jacrev(torch.func.jacrev(lambda x: values(x, functionals, grid)))(picture)
    trace = hessian.reshape(functionals.count, 18, 18).diagonal(dim1=1, dim2=2).view(-1, 2, 9).mean(2)
    torch.testing.assert_close(noise_moments(picture[None], functionals, grid)[0], trace, rtol=1e-11, atol=1e-11)


def test_enough_are_three_for_each_unknown():
    assert enough(2, 24) == ops.Functionals.up_to(2, 6, 3)
    for channels, unknowns in [(1, 4), (1, 12), (2, 8), (3, 30)]:
        assert enough(channels, unknowns).count >= 3 * unknowns
