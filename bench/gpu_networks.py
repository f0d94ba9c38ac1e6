"""Networks on the device: two stages of bench.gpu, right answers and the time of training and of derivatives."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from statistics import median

import torch
from torch import Tensor

from bench.gpu_setting import Setting, attempt, rate
from eqflow import ops
from eqflow.ops.divergence import reference
from eqflow.ops.flow_loss import reference_loss

RELEASED = ops.MLP(3, (64, 64), 4, output_bias=False)  # of the paper's Lorenz study: 2048 rows, 12,800 steps
DEFAULT = ops.MLP(3, (128, 128, 128), 2, output_bias=False)
NETWORKS = {"released": RELEASED, "width 64": ops.MLP(3, (64, 64, 64), 2, output_bias=False), "default": DEFAULT}
STEPS = 12_800


def rows_of(network: ops.MLP, rows: int, models: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Points of a normal distribution with their scores, and parameters."""
    points = ops.normal(rows, network.dimension, seed=1)
    return points.to(device), -points.to(device), network.initial(models, seed=2).to(device)


def _deviation(ours: Tensor, theirs: Tensor) -> float:
    return float((ours.cpu().double() - theirs).abs().max() / theirs.abs().max())


def network_values(setting: Setting) -> Iterator[dict]:
    """Deviations from the specification in float64, as a part of the largest number."""
    rows, models = (5, 2) if setting.dry else (1000, 4)
    for name, network in list(NETWORKS.items())[: 1 if setting.dry else None]:
        points, scores, weights = rows_of(network, rows, models, setting.device)
        exact = weights.cpu().double().requires_grad_()
        host = points.cpu().double(), scores.cpu().double()
        expected = reference(host[0], exact, network, None, "gaussian")
        (slope,) = torch.autograd.grad(expected[1].sum(), exact)
        for backend in setting.backends():

            def compare(network=network, points=points, weights=weights, expected=expected, slope=slope, by=backend):
                ours = weights.clone().requires_grad_()
                results = ops.mlp_divergence(points, ours, network, method="tangents", strain=True, backend=by)
                (gradient,) = torch.autograd.grad(results.divergence.sum(), ours)
                names = "velocity", "divergence", "strain", "gradient"
                wanted = *(part.detach() for part in expected), slope
                return {
                    name: _deviation(a.detach(), b)
                    for name, a, b in zip(names, (*results, gradient), wanted, strict=True)
                }

            yield attempt({"operator": "mlp_divergence", "network": name, "backend": backend}, compare)
        for objective, norm in (("expected", "scalar"), ("sampled", "per-coordinate")):

            def lose(network=network, points=points, scores=scores, weights=weights, exact=exact, host=host,
                     objective=objective, norm=norm):  # fmt: skip
                options = {"objective": objective, "norm": norm, "probes": 4}
                ours = ops.flow_loss(points, scores, weights, network, **options, backend="native")
                loss, *_ = reference_loss(*host, exact, network, objective, 4, "gaussian", norm, 0, 0, 0)
                (gradient,) = torch.autograd.grad(loss.sum(), exact)
                return {"loss": _deviation(ours.loss, loss.detach()), "gradient": _deviation(ours.gradient, gradient)}

            yield attempt({"operator": f"flow_loss, {objective}, {norm}", "network": name, "backend": "native"}, lose)


def training(setting: Setting) -> Iterator[dict]:
    """Seconds that some models need for 12,800 steps of 2048 rows, from an eightieth of the steps."""
    cases = [("released", 100), ("released", 1), ("width 64", 100), ("default", 100)]
    rows, steps = (8, 2) if setting.dry else (2048, STEPS // 80)
    for name, models in cases[: 1 if setting.dry else None]:
        network, models = NETWORKS[name], 2 if setting.dry else models
        points, scores, weights = rows_of(network, 64 if setting.dry else 50_000, models, setting.device)
        options = {"rates": [1e-3] * steps, "rows": rows, "backend": "native"}
        for objective, probes in (("sampled", 10), ("expected", 8)):

            def train(network=network, points=points, scores=scores, weights=weights, options=options, steps=steps,
                      more={"objective": objective, "probes": probes}):  # fmt: skip # noqa: B006
                taken = setting.times(
                    lambda: ops.flow_train(points, scores, weights, None, network, **options, **more), turns=2
                )
                return {"seconds": median(taken) * STEPS / steps, "seconds_a_step": median(taken) / steps}

            yield attempt({"network": name, "models": models, "objective": objective, "probes": probes}, train)


def _derivatives(network: ops.MLP, points: Tensor, weights: Tensor, field: Callable) -> Tensor:
    """The gradient of the mean square of the divergence that `field` gives."""
    parameters = weights.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(field(points, parameters).square().mean(), parameters)
    return gradient


def derivatives(setting: Setting) -> Iterator[dict]:
    """Rows per second of the exact divergence with its gradient, ours and torch.func's."""
    rows = 16 if setting.dry else 2**16
    for name, network in list(NETWORKS.items())[: 1 if setting.dry else None]:
        points, _, weights = rows_of(network, rows, 1, setting.device)

        def by_torch(points: Tensor, parameters: Tensor, network=network) -> Tensor:
            def velocity(point: Tensor) -> Tensor:
                return network.velocity(point[None], parameters)[0, 0]

            return torch.func.vmap(torch.func.jacrev(velocity))(points).diagonal(dim1=-2, dim2=-1).sum(-1)

        fields = {"torch.func": by_torch}
        for backend in setting.backends():
            fields[backend] = lambda points, parameters, network=network, backend=backend: ops.mlp_divergence(
                points, parameters, network, method="tangents", backend=backend
            ).divergence[0]
        answer = _derivatives(network, points, weights, by_torch).cpu().double()
        for by, field in fields.items():

            def measure(network=network, points=points, weights=weights, field=field, answer=answer) -> dict:
                deviation = _deviation(_derivatives(network, points, weights, field), answer)
                if deviation > 1e-3:
                    raise ValueError(f"expected the gradient of torch.func, got one {deviation:.1e} away from it")
                taken = setting.times(lambda: _derivatives(network, points, weights, field))
                return {"deviation": deviation, **rate("rows_per_second", len(points), taken)}

            yield attempt({"network": name, "by": by}, measure)
