import pytest
import torch

from eqflow.ops.gray_scott import laplacian as laplacian_of
from eqflow.systems.patterns import Term, bilaplacian, evaluate, laplacian, value


def test_a_term_is_its_tuple():
    assert laplacian(1, 0) == Term("laplacian", (1, 0)) == ("laplacian", (1, 0))
    assert {value(2, 1): 3.0}["value", (2, 1)] == 3.0


@pytest.mark.parametrize("stencil", ["5-point", "9-point"])
def test_every_operator_and_power(stencil):
    state = torch.randn(2, 3, 7, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    u, v, w = state.unbind(1)
    bent = laplacian_of(v * w * w, stencil) / 0.25
    equations = (
        {bilaplacian(0, 1, 2): 0.3, laplacian(0, 1, 2): -1.0, value(3, 0, 0): 1.0, value(0, 0, 0): -0.7},
        {},
        {value(0, 0, 0): 2.0, value(1, 1, 1): -1.0},
    )
    expected = [
        0.3 * laplacian_of(bent, stencil) / 0.25 - bent + u**3 - 0.7,
        torch.zeros_like(u),
        2 - u * v * w,
    ]
    before = state.clone()
    torch.testing.assert_close(evaluate(equations, state, dx=0.5, stencil=stencil), torch.stack(expected, 1))
    assert torch.equal(state, before)
