import math

import pytest
import torch

from eqflow import ops
from eqflow.ops._backend import native_module
from eqflow.score import Mixture


def cloud(queries, points, dimension, numbers=0, alpha=0.9, seed=0):
    """Points, and queries made from them; float32."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(points, dimension, generator=generator)
    origin = torch.randint(points, (queries,), generator=generator)
    noise = torch.randn(queries, dimension, generator=generator)
    values = torch.randn(points, numbers, generator=generator) if numbers else None
    weights = torch.rand(points, generator=generator)
    return math.sqrt(alpha) * x[origin] + math.sqrt(1 - alpha) * noise, x, origin, weights, values


def doubles(*tensors):
    return [tensor if tensor is None or tensor.dtype == torch.int64 else tensor.double() for tensor in tensors]


def require_close(result, exact, tolerance=4e-6):
    for ours, truth in zip(result, exact, strict=True):
        if truth is None:
            assert ours is None
            continue
        assert ours.shape == truth.shape and ours.dtype == torch.float32
        assert ours.numel() == 0 or (ours - truth).abs().max() <= tolerance * truth.abs().max().clamp_min(1)


SHAPES = [  # queries, points, dimension, numbers
    (1, 1, 1, 0),
    (33, 65, 1, 1),
    (70, 129, 2, 0),
    (100, 1000, 3, 3),
    (5, 64, 4, 20),
    (31, 300, 7, 2),
    (40, 200, 8, 0),
    (17, 100, 16, 1),
    (9, 77, 17, 8),
    (3, 50, 100, 0),
    (0, 5, 2, 2),
]


@pytest.mark.parametrize("queries, points, dimension, numbers", SHAPES)
@pytest.mark.parametrize("excluding", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_every_instruction_set_agrees_with_the_reference(isa, queries, points, dimension, numbers, excluding, weighted):
    if excluding and points == 1:
        pytest.skip("there is no other point")
    y, x, own, weights, values = cloud(queries, points, dimension, numbers)
    own, weights = own if excluding else None, weights if weighted else None
    result = ops.kernel_score(y, x, alpha=0.9, exclude=own, weights=weights, values=values, backend="native")
    y, x, weights, values = doubles(y, x, weights, values)
    require_close(result, ops.kernel_score(y, x, alpha=0.9, exclude=own, weights=weights, values=values))


def explicit_log_density(y, x, alpha, own=None, weights=None):
    log_weights = torch.zeros(len(x)) if weights is None else weights.log()
    log_weights = log_weights.double().repeat(len(y), 1)
    if own is not None:
        log_weights[torch.arange(len(y)), own] = -math.inf
    normal = torch.distributions.Normal(math.sqrt(alpha) * x, math.sqrt(1 - alpha))
    log_joint = normal.log_prob(y[:, None]).sum(-1) + log_weights
    return log_joint.logsumexp(1) - log_weights.logsumexp(1)


@pytest.mark.parametrize("excluding", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("alpha", [0.05, 0.9, 0.995])
def test_the_reference_is_the_gradient_of_the_log_density(alpha, weighted, excluding):
    y, x, own, weights, _ = cloud(20, 60, 3, alpha=alpha)
    y, x, weights = doubles(y, x, weights)
    own, weights = own if excluding else None, weights if weighted else None
    y.requires_grad_()
    log_density = explicit_log_density(y, x, alpha, own, weights)
    (gradient,) = torch.autograd.grad(log_density.sum(), y)
    result = ops.kernel_score(y.detach(), x, alpha=alpha, exclude=own, weights=weights)
    torch.testing.assert_close(result.log_density, log_density.detach(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(result.score, gradient, rtol=1e-10, atol=1e-10)


def test_many_points_add_up_as_in_float64(isa):
    y, x, *_ = cloud(40, 50_000 if isa != "baseline" else 5000, 3, alpha=0.95)
    require_close(ops.kernel_score(y, x, alpha=0.95), ops.kernel_score(*doubles(y, x), alpha=0.95), 2e-6)


def test_bits_do_not_depend_on_instruction_set_threads_or_split(threads):
    y, x, own, weights, values = cloud(150, 333, 5, 9)
    arguments = dict(alpha=0.9, weights=weights, values=values, backend="native")
    whole = ops.kernel_score(y, x, exclude=own, **arguments)
    module = native_module()
    before = module.cpu_isa()
    for isa in module.cpu_isas():
        module.set_cpu_isa(isa)
        for count in (1, 2, 3):
            threads(count)
            parts = [
                ops.kernel_score(y[rows], x, exclude=own[rows], **arguments) for rows in torch.arange(150).split(37)
            ]
            joined = [torch.cat(part) for part in zip(*parts, strict=True)]
            assert all(torch.equal(a, b) for a, b in zip(joined, whole, strict=True))
    module.set_cpu_isa(before)


def test_far_queries_and_far_points(isa):
    y, x, *_ = cloud(40, 200, 2, alpha=0.95)
    away = torch.linspace(0, 300, 40)[:, None]  # up to 1300 standard deviations of the noise
    ours, exact = ops.kernel_score(y + away, x, alpha=0.95), ops.kernel_score(*doubles(y + away, x), alpha=0.95)
    torch.testing.assert_close(ours.score, exact.score.float(), rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(ours.log_density, exact.log_density.float(), rtol=1e-6, atol=1e-4)
    shift = 1000.0  # of the data: kept by the centre
    ours = ops.kernel_score(y + math.sqrt(0.95) * shift, x + shift, alpha=0.95)
    exact = ops.kernel_score(*doubles(y + math.sqrt(0.95) * shift, x + shift), alpha=0.95)
    require_close(ours, exact, 1e-6)


def test_the_nearest_point_may_come_last(isa):
    x = torch.linspace(30, 0, 500)[:, None]  # every block outgrows the one before
    y = torch.zeros(3, 1)
    # A place 15 from the centre is known to 1e-6 in float32, and the score bends by up to 100.
    require_close(ops.kernel_score(y, x, alpha=0.99), ops.kernel_score(*doubles(y, x), alpha=0.99), 2e-5)


def test_a_query_that_leaves_out_the_first_block(isa):
    x = torch.cat([torch.zeros(1, 1), torch.full((1, 1), 40.0)])
    own = torch.zeros(1, dtype=torch.int64)
    result = ops.kernel_score(torch.zeros(1, 1), x, alpha=0.99, exclude=own)
    assert result.score.item() == pytest.approx(math.sqrt(0.99) * 40 / 0.01, rel=1e-6)


def test_points_of_no_weight_do_not_count():
    y, x, *_ = cloud(20, 100, 3)
    weights = (torch.arange(100) < 60).float()
    part = ops.kernel_score(y, x[:60].contiguous(), alpha=0.9, backend="native")
    whole = ops.kernel_score(y, x, alpha=0.9, weights=weights, backend="native")
    require_close(whole[:2], [t.double() for t in part[:2]], 1e-6)


def test_a_smoothed_constant_stays_and_the_smoothed_points_give_the_score():
    y, x, *_ = cloud(50, 400, 3, alpha=0.8)
    result = ops.kernel_score(y, x, alpha=0.8, values=torch.cat([x, torch.full((400, 1), 2.5)], 1))
    torch.testing.assert_close(result.smoothed[:, 3], torch.full((50,), 2.5), rtol=1e-6, atol=0)
    score = (math.sqrt(0.8) * result.smoothed[:, :3] - y) / 0.2
    torch.testing.assert_close(result.score, score, rtol=0, atol=2e-5)


def test_many_points_approach_a_mixture():
    clean = Mixture(torch.tensor([[-1.0, 0.5, 0.0], [1.0, -0.5, 0.2]]), 0.09)
    noised = Mixture(math.sqrt(0.95) * clean.means, 0.95 * 0.09 + 0.05)
    y = noised.sample(1000, seed=1)
    points = clean.sample(50_000, seed=2)
    errors = [
        float((ops.kernel_score(y, points[:count], alpha=0.95).score - noised(y)).norm() / noised(y).norm())
        for count in (500, 5000, 50_000)
    ]
    assert errors[0] > 2 * errors[1] > 4 * errors[2] and errors[2] < 0.05


def test_memory_is_that_of_input_and_output():
    resource = pytest.importorskip("resource")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    y, x, *_ = cloud(8000, 8000, 3)
    ops.kernel_score(y, x, alpha=0.9, backend="native")
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert grown < 8000 * 8000 * 4 / 4  # a temporary of all pairs would be four times this


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_operator_is_registered_properly(dtype):
    y, x, own, weights, values = (t if t.dtype == torch.int64 else t.to(dtype) for t in cloud(6, 10, 3, 2))
    backend = "native" if dtype == torch.float32 else "reference"
    for queries in (y, y.T.contiguous().T):
        torch.library.opcheck(torch.ops.eqflow.kernel_score.default, (queries, x, values, own, weights, 0.9, backend))


y, x = torch.zeros(3, 2), torch.zeros(4, 2)


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        (dict(alpha=1.0), ValueError, r"expected alpha in \(0, 1\).*got 1\.0"),
        (dict(alpha=0.0), ValueError, r"expected alpha in \(0, 1\).*got 0\.0"),
        (dict(queries=torch.zeros(3, 5)), ValueError, "one dimension, got 5 and 2"),
        (dict(queries=torch.zeros(3)), ValueError, r"expected queries \[number, dimension\], got \[3\]"),
        (dict(queries=[[0.0, 0.0]]), TypeError, "expected queries as a torch.Tensor, got list"),
        (dict(points=torch.zeros(0, 2)), ValueError, r"at least one point.*got points \[0, 2\]"),
        (dict(points=x.double()), TypeError, r"expected points as torch\.float32.*got torch\.float64"),
        (dict(queries=y.half(), points=x.half()), TypeError, r"got torch\.float16: use queries\.float\(\)"),
        (dict(queries=y.double(), points=x.double(), backend="native"), TypeError, "use backend='reference'"),
        (dict(queries=torch.full((3, 2), math.nan)), ValueError, "expected finite queries, but row 0 has NaN"),
        (dict(points=torch.tensor([[0.0, 0.0], [0.0, math.inf]])), ValueError, "finite points, but row 1"),
        (dict(exclude=torch.tensor([0, 1])), ValueError, r"expected exclude \[3\], got \[2\]"),
        (dict(exclude=torch.tensor([0, 1, 4])), ValueError, r"expected exclude in \[0, 3\].*got 0 to 4"),
        (dict(exclude=torch.zeros(3)), TypeError, r"expected exclude as torch\.int64"),
        (dict(points=torch.zeros(1, 2), exclude=torch.zeros(3).long()), ValueError, "two points or more"),
        (dict(weights=torch.ones(3)), ValueError, r"expected weights \[4\], got \[3\]"),
        (dict(weights=-torch.ones(4)), ValueError, "weights from 0 up"),
        (dict(values=torch.ones(4)), ValueError, r"expected values \[4, numbers\], got \[4\]"),
        (dict(queries=y.clone().requires_grad_()), NotImplementedError, r"no derivative.*queries\.detach"),
        (dict(backend="cuda"), ops.BackendError, "expected backend 'auto'"),
    ],
)
def test_wrong_arguments_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        ops.kernel_score(**(dict(queries=y, points=x, alpha=0.9) | arguments))


@pytest.mark.gpu
@pytest.mark.parametrize("backend", ["native", "triton"])
@pytest.mark.parametrize("queries, points, dimension, numbers", SHAPES)
def test_gpu_agrees_with_the_reference(backend, queries, points, dimension, numbers):
    y, x, own, weights, values = cloud(queries, points, dimension, numbers)
    own = own if points > 1 else None
    on_gpu = [None if t is None else t.cuda() for t in (own, weights, values)]
    names = ("exclude", "weights", "values")
    result = ops.kernel_score(y.cuda(), x.cuda(), alpha=0.9, backend=backend, **dict(zip(names, on_gpu, strict=True)))
    exact = dict(zip(names, doubles(own, weights, values), strict=True))
    require_close(
        [None if t is None else t.cpu() for t in result], ops.kernel_score(*doubles(y, x), alpha=0.9, **exact)
    )
