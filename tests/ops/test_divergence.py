import math

import pytest
import torch
from torch.autograd import forward_ad

from eqflow import ops
from eqflow.ops import MLP
from eqflow.ops.divergence import draw_probes, pushforward, serves_bilinear

NETWORKS = [
    MLP(1, (5,)),
    MLP(2, (64, 64)),
    MLP(3, (32, 20, 17), frequencies=2, output_bias=False),
    MLP(3, (64, 64), frequencies=4),
    MLP(5, (9, 30), output_bias=False),
    MLP(4, (8, 8, 8, 8), frequencies=1),
    MLP(16, (40, 33)),
    MLP(2, (256, 130), frequencies=3),
]
METHODS = [  # method, law, strain
    ("tangents", "gaussian", True),
    ("tangents", "rademacher", True),
    ("bilinear", "gaussian", False),
    ("probes", "gaussian", False),
    ("probes", "rademacher", False),
]


def problem(network, rows, models=2, dtype=torch.float64):
    """Points [models, rows, dimension] and parameters."""
    generator = torch.Generator().manual_seed(rows)
    points = torch.randn(models, rows, network.dimension, generator=generator, dtype=torch.float64)
    return points.float().to(dtype), network.initial(models, seed=1).to(dtype)


def random_sum(results):
    """A number that depends on everything that was computed, and on each in its own way."""
    parts = [result for result in results if result is not None]
    generator = torch.Generator().manual_seed(3)
    weights = [torch.randn(part.shape, generator=generator, dtype=torch.float64).float() for part in parts]
    return sum((weight.to(part.dtype) * part).sum() for weight, part in zip(weights, parts, strict=True))


def require_close(ours, exact, tolerance):
    assert ours.shape == exact.shape
    assert ours.numel() == 0 or (ours - exact).abs().max() <= tolerance * exact.abs().max()


def served(network, method):
    return method != "bilinear" or serves_bilinear(network)


@pytest.mark.parametrize("network", NETWORKS, ids=str)
@pytest.mark.parametrize("rows", [1, 101])
def test_every_instruction_set_agrees_with_the_reference(isa, network, rows):
    for method, law, strain in METHODS:
        if not served(network, method):
            continue
        options = dict(method=method, law=law, strain=strain, probes=3, seed=2**63 + 5, step=2**33 + 1, first_model=7)
        results, gradients = [], []
        for dtype in (torch.float32, torch.float64):
            points, parameters = problem(network, rows, dtype=dtype)
            parameters.requires_grad_()
            results.append(ops.mlp_divergence(points, parameters, network, **options))
            gradients += torch.autograd.grad(random_sum(results[-1]), parameters)
        for ours, exact in zip(*results, strict=True):
            if exact is None:
                assert ours is None
            else:
                require_close(ours.detach(), exact.detach(), 2e-5)
        require_close(*gradients, 2e-5)


@pytest.mark.parametrize("network", NETWORKS, ids=str)
def test_the_reference_is_the_trace_and_the_strain_of_the_jacobian(network):
    points, parameters = problem(network, 4)
    for model in range(2):
        single = parameters[model : model + 1]
        dense = torch.stack(
            [
                torch.autograd.functional.jacobian(lambda x: network.velocity(x[None], single)[0, 0], point)  # noqa: B023
                for point in points[model]
            ]
        )
        strain = ((dense + dense.mT) / 2).square().sum((1, 2))
        results = {
            law: ops.mlp_divergence(points[model], single, network, method="tangents", law=law, strain=True)
            for law in ("gaussian", "rademacher")
        }
        trace = dense.diagonal(dim1=1, dim2=2).sum(1)
        require_close(results["gaussian"].divergence[0], trace, 1e-12)
        require_close(results["gaussian"].strain[0], strain, 1e-12)
        off_diagonal = strain - dense.diagonal(dim1=1, dim2=2).square().sum(1)
        torch.testing.assert_close(results["rademacher"].strain[0], off_diagonal, rtol=0, atol=1e-12 * strain.max())
        directions = draw_probes(1, 4, 2, network.dimension, law="gaussian", seed=0, step=0).double()
        _, pushed = pushforward(points[model], single, network, directions)
        require_close(pushed[0], torch.einsum("rij,rpj->rpi", dense, directions[0]), 1e-12)


@pytest.mark.parametrize("network", [n for n in NETWORKS if serves_bilinear(n)], ids=str)
def test_the_bilinear_form_is_the_trace(network):
    gradients = []
    for method in ("bilinear", "tangents"):
        points, parameters = problem(network, 20)
        parameters.requires_grad_()
        result = ops.mlp_divergence(points, parameters, network, method=method)
        gradients += torch.autograd.grad(random_sum(result), parameters)
        exact = ops.mlp_divergence(points, parameters, network, method="tangents")
        require_close(result.divergence.detach(), exact.divergence.detach(), 1e-12)
        require_close(result.velocity.detach(), exact.velocity.detach(), 1e-12)
    require_close(*gradients, 1e-12)


@pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")  # PyTorch's own, in its forward mode
@pytest.mark.parametrize("method, law, strain", METHODS)
def test_gradients_of_the_reference(method, law, strain):
    network = MLP(2, (3, 2))
    points, parameters = problem(network, 2, models=1)

    def function(points, parameters):
        options = dict(method=method, law=law, strain=strain, probes=2, seed=4)
        result = ops.mlp_divergence(points, parameters, network, **options)
        return tuple(part for part in result if part is not None)

    inputs = points.requires_grad_(), parameters.requires_grad_()
    assert torch.autograd.gradcheck(function, inputs, check_forward_ad=True)
    if method == "bilinear":
        assert torch.autograd.gradgradcheck(function, inputs)


@pytest.mark.parametrize("law", ["gaussian", "rademacher"])
def test_mean_and_variance_of_hutchinsons_estimate(law):
    network, count, probes = MLP(3, (16, 16)), 100_000, 2
    point, parameters = torch.tensor([[0.3, -0.7, 1.1]]), 3 * network.initial(1, seed=8)
    exact = ops.mlp_divergence(point, parameters, network, method="tangents", law=law, strain=True)
    estimates = ops.mlp_divergence(
        point.expand(count, 3), parameters, network, method="probes", probes=probes, law=law, seed=1
    ).divergence[0].double()  # fmt: skip
    centred = estimates - estimates.mean()
    variance, fourth = centred.square().mean(), centred.pow(4).mean()
    predicted = 2 * exact.strain.item() / probes
    assert abs(estimates.mean() - exact.divergence.item()) < 4 * (variance / count).sqrt()
    assert abs(variance - predicted) < 4 * ((fourth - variance.square()) / count).sqrt()
    assert (variance / count).sqrt() < 0.01 * predicted**0.5  # the check is a sharp one


@pytest.mark.parametrize("law", ["gaussian", "rademacher"])
@pytest.mark.parametrize("dimension", [1, 3, 4, 7])
def test_probes_are_those_of_the_specification(law, dimension):
    network = MLP(dimension, (6,), output_bias=False)
    points, parameters = problem(network, 100, dtype=torch.float32)
    counter = dict(law=law, seed=11, step=3, first_model=2**31)
    ours = ops.mlp_divergence(points, parameters, network, method="probes", probes=5, **counter).divergence
    directions = draw_probes(2, 100, 5, dimension, **counter)
    _, pushed = pushforward(points.double(), parameters.double(), network, directions.double())
    require_close(ours, (directions * pushed).sum(-1).mean(-1), 2e-6)
    assert directions.square().mean() == pytest.approx(1, abs=0.15)


def test_bits_do_not_depend_on_threads_or_company(isa, threads):
    for network, method in (
        (MLP(3, (20, 30)), "bilinear"),
        (MLP(3, (20, 30), 1), "tangents"),
        (MLP(3, (9,)), "probes"),
    ):
        points, parameters = problem(network, 1000, models=3, dtype=torch.float32)
        options = dict(method=method, probes=2, seed=1)

        def everything(points, parameters, network=network, options=options, **more):
            parameters = parameters.clone().requires_grad_()
            result = ops.mlp_divergence(points, parameters, network, **options, **more)
            (gradient,) = torch.autograd.grad(random_sum(result), parameters)
            return result.velocity, result.divergence, gradient

        threads(1)
        whole = everything(points, parameters)
        shared = everything(points[0], parameters)
        for count in (2, 3, 8):
            threads(count)
            assert all(torch.equal(a, b) for a, b in zip(everything(points, parameters), whole, strict=True))
        for model in range(3):
            one = slice(model, model + 1)
            for company, rows in ((whole, points[one]), (shared, points[0])):
                alone = ops.mlp_divergence(rows, parameters[one], network, **options, first_model=model)
                assert torch.equal(alone.velocity, company[0][one]) and torch.equal(alone.divergence, company[1][one])


def test_the_gradient_of_a_model_is_the_same_in_any_company(threads):
    network = MLP(3, (20, 30))
    points, parameters = problem(network, 300, models=3, dtype=torch.float32)

    def gradient(rows, weights):
        weights = weights.clone().requires_grad_()
        return torch.autograd.grad(ops.mlp_divergence(rows, weights, network).divergence.square().sum(), weights)[0]

    threads(2)
    together = gradient(points, parameters)
    for model in range(3):
        assert torch.equal(gradient(points[model], parameters[model : model + 1])[0], together[model])


def test_far_points_keep_their_octaves(isa):
    network = MLP(1, (8,), frequencies=5)
    points = torch.linspace(-300, 300, 97)[:, None]
    parameters = network.initial(1, seed=0)
    ours = ops.mlp_divergence(points, parameters, network)
    exact = ops.mlp_divergence(points.double(), parameters.double(), network)
    require_close(ours.divergence, exact.divergence, 2e-5)


def test_extreme_activations_are_finite(isa):
    network = MLP(1, (2,))
    parameters = torch.tensor([[1.0, -1.0, 0.0, 0.0, 1.0, 0.5, 0.0]])
    points = torch.tensor([0.0, 50.0, -50.0, 90.0, -90.0, 1e4, -1e4, 1e30])[:, None]
    ours = ops.mlp_divergence(points, parameters, network)
    exact = ops.mlp_divergence(points.double(), parameters.double(), network)
    torch.testing.assert_close(ours.divergence, exact.divergence.float(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(ours.velocity, exact.velocity.float(), rtol=1e-5, atol=1e-6)
    assert ops.mlp_divergence(torch.full((1, 1), math.nan), parameters, network).divergence.isnan().all()


def test_no_temporary_of_rows_times_directions_times_width():
    resource = pytest.importorskip("resource")
    network, rows = MLP(3, (64, 64)), 40_000
    points, parameters = torch.randn(rows, 3), network.initial(1, seed=0).requires_grad_()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    ops.mlp_divergence(points, parameters, network, method="probes", probes=16).divergence.sum().backward()
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert grown < rows * 16 * 64 * 4 / 4


@pytest.mark.parametrize("method, law, strain", METHODS)
def test_the_operator_is_registered_properly(method, law, strain):
    network = MLP(3, (4, 5))
    points, parameters = problem(network, 6, dtype=torch.float32)
    parameters.requires_grad_()
    for rows in (points, points[0], points.transpose(0, 1).contiguous().transpose(0, 1)):
        arguments = rows, parameters, [4, 5], 0, True, method, 2, law, strain, 1, 0, 0, "native"
        torch.library.opcheck(torch.ops.eqflow.mlp_divergence.default, arguments)


def test_no_rows():
    network = MLP(2, (4, 4))
    points, parameters = problem(network, 5, dtype=torch.float32)
    parameters.requires_grad_()
    empty = ops.mlp_divergence(points[:, :0], parameters, network, strain=True)
    assert empty.velocity.shape == (2, 0, 2) and empty.strain.shape == (2, 0)
    empty.divergence.sum().backward()
    assert not parameters.grad.any()


@pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")
def test_derivatives_that_the_kernels_do_not_have_are_refused():
    network = MLP(2, (4, 4))
    points, parameters = problem(network, 5, dtype=torch.float32)

    def by_points(points):
        return ops.mlp_divergence(points, parameters, network).divergence

    def by_parameters(parameters):
        return ops.mlp_divergence(points, parameters, network).divergence

    for function, at in ((by_points, points), (by_parameters, parameters)):
        with pytest.raises(NotImplementedError, match="backend='reference'"):
            torch.func.jvp(function, (at,), (torch.ones_like(at),))
        with forward_ad.dual_level(), pytest.raises(NotImplementedError, match="backend='reference'"):
            function(forward_ad.make_dual(at, torch.ones_like(at)))
    with pytest.raises(RuntimeError, match="functorch"):
        torch.func.grad(lambda weights: by_parameters(weights).sum())(parameters)
    with pytest.raises(NotImplementedError, match=r"points\.detach\(\).*backend='reference'"):
        by_points(points.clone().requires_grad_())
    points.requires_grad_()
    ops.mlp_divergence(points, parameters, network, backend="reference").divergence.sum().backward()
    assert points.grad.abs().max() > 0
    points.requires_grad_(False)
    parameters.requires_grad_()
    (gradient,) = torch.autograd.grad(by_parameters(parameters).sum(), parameters, create_graph=True)
    with pytest.raises(NotImplementedError, match="no second derivative: use backend='reference'"):
        gradient.sum().backward()


network = MLP(2, (4, 4))
x, weights = torch.zeros(3, 2), torch.zeros(1, network.size)


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        (dict(points=[[0.0, 0.0]]), TypeError, "expected points as a torch.Tensor, got list"),
        (dict(points=x.double()), TypeError, "both in float32 or both in float64, got torch.float64"),
        (dict(points=x.half(), parameters=weights.half()), TypeError, "got torch.float16"),
        (dict(points=torch.zeros(3, 3)), ValueError, r"expected points \[rows, 2\] or \[1, rows, 2\], got \[3, 3\]"),
        (dict(points=torch.zeros(2, 3, 2)), ValueError, r"got \[2, 3, 2\]"),
        (dict(parameters=torch.zeros(1, 5)), ValueError, rf"expected parameters \[models, {network.size}\].*\[1, 5\]"),
        (dict(network="MLP"), TypeError, "expected network as an eqflow.ops.MLP, got str"),
        (dict(method="exact"), ValueError, "expected method 'auto', 'tangents'.*got 'exact'"),
        (dict(law="uniform"), ValueError, "expected law 'gaussian', 'rademacher', got 'uniform'"),
        (dict(method="probes", probes=0), ValueError, "expected probes from 1 up, got 0"),
        (dict(method="bilinear", strain=True), ValueError, "the strain comes from tangents.*use method='tangents'"),
        (dict(method="probes", strain=True), ValueError, "got method='probes'"),
        (dict(seed=-1), ValueError, "expected seed in"),
        (dict(first_model=2**32), ValueError, "expected first_model in"),
        (dict(points=x.double(), parameters=weights.double(), backend="native"), TypeError, "use backend='reference'"),
        (dict(backend="cuda"), ops.BackendError, "expected backend 'auto'"),
        (
            dict(backend="triton", method="bilinear"),
            ops.BackendError,
            "by tangents or probes alone: use backend='native'",
        ),
    ],
)
def test_wrong_arguments_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        ops.mlp_divergence(**(dict(points=x, parameters=weights, network=network) | arguments))


@pytest.mark.parametrize("shape", [MLP(2, (4, 4, 4)), MLP(2, (4,)), MLP(2, (4, 4), frequencies=1)], ids=str)
def test_the_bilinear_form_is_refused_where_it_does_not_hold(shape):
    with pytest.raises(ValueError, match=r"two hidden layers and no encoding, got MLP.*use method='tangents'"):
        ops.mlp_divergence(x, torch.zeros(1, shape.size), shape, method="bilinear")


@pytest.mark.parametrize(
    "shape", [MLP(2, (4,) * 5), MLP(2, (257,)), MLP(17, (4,)), MLP(16, (4,), frequencies=8)], ids=str
)
def test_large_networks_are_left_to_the_reference(shape):
    points, parameters = torch.zeros(3, shape.dimension), shape.initial(1, seed=0)
    with pytest.raises(ValueError, match=r"up to 4 hidden layers of up to 256 units, dimension 16.*'reference'"):
        ops.mlp_divergence(points, parameters, shape)
    assert ops.mlp_divergence(points, parameters, shape, backend="reference").divergence.shape == (1, 3)


@pytest.mark.gpu
@pytest.mark.parametrize("network", NETWORKS, ids=str)
def test_gpu_agrees_with_the_reference(network):
    for method, law, strain in METHODS:
        if not served(network, method):
            continue
        options = dict(method=method, law=law, strain=strain, probes=3, seed=3, step=2, first_model=7)
        points, parameters = problem(network, 101, dtype=torch.float32)
        on_gpu = parameters.cuda().requires_grad_()
        ours = ops.mlp_divergence(points.cuda(), on_gpu, network, **options)
        (gradient,) = torch.autograd.grad(random_sum([None if part is None else part.cpu() for part in ours]), on_gpu)
        exact_parameters = parameters.double().requires_grad_()
        exact = ops.mlp_divergence(points.double(), exact_parameters, network, **options)
        (exact_gradient,) = torch.autograd.grad(random_sum(exact), exact_parameters)
        for a, b in zip(ours, exact, strict=True):
            if b is not None:
                require_close(a.detach().cpu().double(), b.detach(), 2e-5)
        require_close(gradient.cpu().double(), exact_gradient, 2e-5)
