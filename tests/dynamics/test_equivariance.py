import pytest
import torch

from eqflow.dynamics.equivariance import mirror, tied
from eqflow.ops.divergence import pushforward
from eqflow.ops.flow_loss import reference_loss
from eqflow.ops.mlp import MLP

DOUBLE = torch.float64
CASES = [
    (MLP(3, (8, 6, 4), frequencies=2), [-1, -1, 1], "even"),
    (MLP(3, (8, 6), frequencies=1), [-1, -1, 1], "odd"),
    (MLP(2, (10,)), [1, -1], "even"),
    (MLP(2, (4, 4), output_bias=False), [-1, -1], "odd"),
    (MLP(1, (6,)), [-1], "even"),
]


def symmetrised(values, partners):
    """The mean of parameters, or of a gradient, and what the flip makes of them: what `flow_train` does."""
    return (values + partners.sign() * values[:, partners.abs().long() - 1]) / 2


def network_case(network, signs, parity, seed=0):
    signs = torch.tensor(signs)
    partners = mirror(network, signs, parity)
    parameters = tied(network.initial(2, seed=seed).double(), partners)
    generator = torch.Generator().manual_seed(1)
    points = torch.randn(9, network.dimension, dtype=DOUBLE, generator=generator)
    scores = torch.randn(9, network.dimension, dtype=DOUBLE, generator=generator)
    return signs, (1 if parity == "even" else -1) * signs, partners, parameters, points, scores


@pytest.mark.parametrize("network, signs, parity", CASES)
def test_a_tied_network_is_exactly_equivariant(network, signs, parity):
    signs, outward, _, parameters, points, _ = network_case(network, signs, parity)
    basis = torch.eye(network.dimension, dtype=DOUBLE)[None, None]
    here, columns = pushforward(points, parameters, network, basis)
    there, flipped = pushforward(points * signs, parameters, network, basis)
    torch.testing.assert_close(there, outward * here, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(flipped, signs[:, None] * outward * columns, rtol=1e-13, atol=1e-13)
    assert here.abs().amax((0, 1)).min() > 0  # and not at rest


@pytest.mark.parametrize("network, signs, parity", CASES)
def test_the_flip_undoes_itself_and_tying_is_done_once(network, signs, parity):
    _, _, partners, parameters, _, _ = network_case(network, signs, parity)
    index, sign = partners.abs().long() - 1, partners.sign()
    assert partners.dtype == torch.int32 and torch.equal(index[index], torch.arange(network.size))
    assert torch.equal(sign[index], sign)
    assert torch.equal(tied(parameters, partners), parameters)
    assert torch.equal(symmetrised(parameters, partners), parameters)


def test_tied_weights_keep_the_law_of_the_initial_ones():
    network = MLP(3, (128, 128), 2, output_bias=False)
    plain = network.initial(1, seed=0)
    parameters = tied(plain, mirror(network, torch.tensor([-1, -1, 1])))
    for (weight, bias), (_, into) in zip(network.layers(parameters), network.shapes, strict=True):
        assert float(weight.std() * into**0.5) == pytest.approx(3**-0.5, rel=0.1)
        assert bias is None or float(bias.std() * into**0.5) == pytest.approx(3**-0.5, rel=0.2)
    assert (parameters == plain).double().mean() == 0.5


@pytest.mark.parametrize("network, signs, parity", CASES)
@pytest.mark.parametrize("objective", ["expected", "exact"])
def test_the_symmetrised_gradient_is_that_of_points_and_images_together(network, signs, parity, objective):
    signs, _, partners, parameters, points, scores = network_case(network, signs, parity)

    def gradient(points, scores):
        weights = parameters.clone().requires_grad_()
        loss, *_ = reference_loss(points, scores, weights, network, objective, 4, "gaussian", "none", 0, 0, 0)
        return torch.autograd.grad(loss.sum(), weights)[0]

    both = gradient(torch.cat([points, points * signs]), torch.cat([scores, scores * signs]))
    torch.testing.assert_close(symmetrised(gradient(points, scores), partners), both, rtol=1e-11, atol=1e-11)
    assert (both - gradient(points, scores)).abs().max() > 1e-3


@pytest.mark.parametrize(
    "signs, parity, hidden, message",
    [
        ([-1, 1], "even", (4, 5), r"expected even hidden widths.*got \(4, 5\)"),
        ([-1, 1], "both", (4,), "expected parity 'even' or 'odd'"),
        ([1, 1], "even", (4,), r"not all \+1"),
        ([-1, 0.5], "even", (4,), r"expected 2 signs \+1 or -1.*got \[-1\.0, 0\.5\]"),
    ],
)
def test_wrong_arguments_are_refused(signs, parity, hidden, message):
    with pytest.raises(ValueError, match=message):
        mirror(MLP(2, hidden), torch.tensor(signs), parity)
