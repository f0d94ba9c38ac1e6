"""Every native CUDA operator on streams of its own and on a device that is not the current one."""

import pytest
import torch
from torch import Tensor

from eqflow import ops

NETWORK = ops.MLP(3, (32, 20), frequencies=2)


def random(*shape: int, seed: int, device: torch.device) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(device)


def gray_scott(seed: int, device: torch.device):
    state = random(4, 2, 160, 96, seed=seed, device=device).sigmoid()
    return lambda: [ops.gray_scott(state, 40, feed=0.04, kill=0.06, every=20, backend="native")]


def normal(seed: int, device: torch.device):
    return lambda: [ops.normal(300, sites, seed=seed, device=device, backend="native") for sites in (3, 515, 4096)]


def langevin_update(seed: int, device: torch.device):
    def problem(channels: int, radius: int) -> list[Tensor]:
        fields, kernels = (2, 8, channels, 64, 64), (2, channels, channels, 2 * radius + 1, 2 * radius + 1)
        return [*random(*fields, seed=seed, device=device), *random(*kernels, seed=seed + 1, device=device)]

    problems = [problem(channels, radius) for channels, radius in ((2, 0), (16, 0), (2, 1), (4, 2), (2, 3))]
    return lambda: [ops.langevin_update(*fields, 0.3, seed=seed, step=7, backend="native") for fields in problems]


def kernel_score(seed: int, device: torch.device):
    queries, points = random(2, 2000, 3, seed=seed, device=device)
    return lambda: [ops.kernel_score(queries, points, alpha=0.9, backend="native").score]


def clouds(seed: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    return *random(2, 2, 300, 3, seed=seed, device=device), NETWORK.initial(2, seed=seed).to(device)


def mlp_divergence(seed: int, device: torch.device):
    points, _, parameters = clouds(seed, device)
    parameters.requires_grad_()

    def run() -> list[Tensor]:
        result = ops.mlp_divergence(points, parameters, NETWORK, strain=True, backend="native")
        (gradient,) = torch.autograd.grad(result.divergence.square().sum(), parameters)
        return [*(part.detach() for part in result), gradient]

    return run


def flow_loss(seed: int, device: torch.device):
    points, scores, parameters = clouds(seed, device)
    return lambda: list(ops.flow_loss(points, scores, parameters, NETWORK, backend="native"))


def flow_train(seed: int, device: torch.device):
    points, scores, parameters = clouds(seed, device)
    options = {"rates": [1e-3] * 5, "rows": 64, "seed": seed, "backend": "native"}
    return lambda: [*ops.flow_train(points[0], scores[0], parameters, None, NETWORK, **options)]


OPERATORS = [gray_scott, normal, langevin_update, kernel_score, mlp_divergence, flow_loss, flow_train]


def require_equal(ours: list[Tensor], theirs: list[Tensor]) -> None:
    for a, b in zip(ours, theirs, strict=True):
        assert b.isfinite().all() and torch.equal(a.cpu(), b.cpu())


@pytest.mark.gpu
@pytest.mark.parametrize("operator", OPERATORS)
def test_two_streams_at_once_do_not_disturb_each_other(operator):
    runs = [operator(seed, torch.device("cuda")) for seed in (1, 2)]
    expected = [run() for run in runs]
    torch.cuda.synchronize()
    streams = [torch.cuda.Stream() for _ in runs]
    found = [[], []]
    for _ in range(5):
        for run, stream, results in zip(runs, streams, found, strict=True):
            with torch.cuda.stream(stream):
                results.append(run())
    torch.cuda.synchronize()
    for results, alone in zip(found, expected, strict=True):
        for result in results:
            require_equal(result, alone)


@pytest.mark.gpu
@pytest.mark.parametrize("operator", OPERATORS)
def test_a_device_that_is_not_the_current_one(operator):
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two CUDA devices")
    expected = operator(1, torch.device("cuda", 0))()
    with torch.cuda.device(0):
        found = operator(1, torch.device("cuda", 1))()
        assert torch.cuda.current_device() == 0
    assert all(part.device.index == 1 for part in found)
    require_equal(found, expected)
