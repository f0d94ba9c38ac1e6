"""The loss of an equilibrium flow, its gradient, and many steps of Adam, for many independent networks at once.

    residual r = div v + v . s, which vanishes where v keeps the density whose score is s (Zhang & Levin 2025)
    exact      mean of r^2
    expected   mean of r^2 + (2 / k) strain: what "sampled" is on average, without the noise of the probes
    sampled    mean of (mean over k probes of z^T J z + v . s)^2: the paper's
    product    mean over pairs of different probes of r_i r_j: unbiased for r^2

v = (u - m) / sigma with the mean m and the scale sigma of the network's output u over the batch: one scale for all
coordinates ("scalar"), one each ("per-coordinate", the paper's), or v = u ("none"). sigma^2 = variance + 1e-5. The
statistics are constants in J, and differentiated with respect to the parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from eqflow.ops import _backend, _network, divergence, philox
from eqflow.ops.mlp import MLP

OBJECTIVES = ("exact", "expected", "sampled", "product")  # as in csrc/kernels.h, in this order
NORMS = ("scalar", "per-coordinate", "none")
EPSILON = 1e-5  # added to the variance, as batch normalisation does
BETAS, ADAM_EPSILON = (0.9, 0.999), 1e-8


class FlowLoss(NamedTuple):
    """What `flow_loss` gives, for each model."""

    loss: Tensor  # [models]
    gradient: Tensor  # [models, size]
    mean: Tensor  # [models, dimension]: m of this batch
    scale: Tensor  # [models, dimension]: sigma of this batch


class FlowTraining(NamedTuple):
    """What `flow_train` gives."""

    parameters: Tensor  # [models, size]
    moments: Tensor  # [2, models, size]: first and second moments of Adam
    losses: Tensor  # [models, steps]


def statistics(
    output: Tensor,  # [models, rows, dimension]
    norm: str,
) -> tuple[Tensor, Tensor]:
    """The specification: mean and scale of the output over the rows, [models, dimension] each."""
    if norm == "none":
        return torch.zeros_like(output[:, 0]), torch.ones_like(output[:, 0])
    mean = output.mean(1)
    variance = (output - mean[:, None]).square().mean(1)
    if norm == "scalar":
        variance = variance.mean(-1, keepdim=True).expand_as(variance)
    return mean, (variance + EPSILON).sqrt()


def reference_loss(
    points: Tensor,  # [rows, dimension], or [models, rows, dimension]
    scores: Tensor,  # like points
    parameters: Tensor,  # [models, size]
    network: MLP,
    objective: str,
    probes: int,
    law: str,
    norm: str,
    seed: int,
    step: int,
    first_model: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """The specification: loss [models], mean and scale, differentiable in the parameters and the points' type."""
    exact = objective in ("exact", "expected")
    if exact:
        directions = torch.eye(network.dimension, dtype=points.dtype, device=points.device)[None, None]
    else:
        counter = {"seed": seed, "step": step, "first_model": first_model, "device": points.device}
        shape = len(parameters), points.shape[-2], probes, network.dimension
        directions = divergence.draw_probes(*shape, law=law, **counter).to(points)
    output, pushed = divergence.pushforward(points, parameters, network, directions)
    mean, scale = statistics(output, norm)
    velocity, pushed = (output - mean[:, None]) / scale[:, None], pushed / scale[:, None, None]
    along = (velocity * scores).sum(-1)
    if exact:
        diagonal = pushed.diagonal(dim1=-2, dim2=-1)
        rows = (diagonal.sum(-1) + along).square()
        if objective == "expected":
            strain = ((pushed + pushed.mT) / 2).square().sum((-2, -1))
            rows = rows + 2 / probes * (strain - (diagonal.square().sum(-1) if law == "rademacher" else 0))
    else:
        estimates = (directions * pushed).sum(-1) + along[..., None]
        rows = estimates.mean(-1).square()
        if objective == "product":
            rows = (estimates.sum(-1).square() - estimates.square().sum(-1)) / (probes * (probes - 1))
    return rows.mean(-1), mean, scale


def minibatch(rows: int, of: int, models: int, *, seed: int, step: int, first_model: int, device) -> Tensor:
    """The rows of the pool in the batch of one step, int64 [models, rows], drawn with replacement."""
    indices = torch.arange(first_model, first_model + models, device=device)
    words = philox.words(indices, rows, seed=seed, step=step, stream=philox.STREAMS["minibatch"])
    return philox.integers(words, of)


def reference_train(
    points,
    scores,
    parameters,
    moments,
    network,
    rates,
    first_step,
    rows,
    objective,
    probes,
    law,
    norm,
    weight_decay,
    mirror,
    seed,
    first_model,
) -> tuple[Tensor, Tensor, Tensor]:
    """The specification: Adam on minibatches of the pool (points, scores), one step after another."""
    (first, second), losses = moments.clone(), []
    for step, rate in enumerate(rates.tolist(), first_step):
        chosen = minibatch(
            rows, len(points), len(parameters), seed=seed, step=step, first_model=first_model, device=points.device
        )
        with torch.enable_grad():
            parameters = parameters.detach().requires_grad_()
            loss, _, _ = reference_loss(
                points[chosen],
                scores[chosen],
                parameters,
                network,
                objective,
                probes,
                law,
                norm,
                seed,
                step,
                first_model,
            )
            (gradient,) = torch.autograd.grad(loss.sum(), parameters)
        gradient = gradient + weight_decay * parameters.detach()
        if mirror is not None:
            gradient = (gradient + mirror.sign() * gradient[:, mirror.abs().long() - 1]) / 2
        first = torch.lerp(first, gradient, 1 - BETAS[0])
        second = torch.lerp(second, gradient.square(), 1 - BETAS[1])
        corrected = second / (1 - BETAS[1] ** (step + 1))
        parameters = parameters.detach() - rate / (1 - BETAS[0] ** (step + 1)) * first / (
            corrected.sqrt() + ADAM_EPSILON
        )
        losses.append(loss.detach())
    return parameters, torch.stack([first, second]), torch.stack(losses, -1)


_SHAPE = "int[] hidden, int frequencies, bool output_bias"
_LOSS = "str objective, int probes, str law, str norm, int seed, int step, int first_model"
torch.library.define(
    "eqflow::flow_loss",
    f"(Tensor points, Tensor scores, Tensor parameters, {_SHAPE}, {_LOSS}) -> (Tensor, Tensor, Tensor, Tensor)",
    tags=[torch.Tag.pt2_compliant_tag],
)
torch.library.define(
    "eqflow::flow_train",
    "(Tensor points, Tensor scores, Tensor parameters, Tensor moments, Tensor rates, Tensor? mirror, "
    f"{_SHAPE}, {_LOSS}, int rows, float weight_decay) -> (Tensor, Tensor, Tensor)",
    tags=[torch.Tag.pt2_compliant_tag],
)


def _params(
    points, parameters, hidden, frequencies, output_bias, objective, probes, law, norm, seed, step, first_model, rows,
    **training,
):  # fmt: skip
    bilinear = objective == "exact" and len(hidden) == 2 and not frequencies
    return _backend.native_module().FlowParams(
        network=_network.native_shape(hidden, frequencies, output_bias, points.shape[-1]),
        models=len(parameters),
        rows=rows,
        shared_points=points.ndim == 2,
        objective=OBJECTIVES.index(objective),
        norm=NORMS.index(norm),
        method=divergence.METHODS.index("bilinear" if bilinear else "tangents"),
        law=divergence.LAWS.index(law),
        probes=probes,
        seed=seed & (2**64 - 1),
        step=step,
        first_model=first_model,
        **training,
    )


@torch.library.impl("eqflow::flow_loss", "CompositeExplicitAutograd")
def _run_loss(points, scores, parameters, *options):
    results = _empty_loss(points, scores, parameters)
    if len(parameters):
        module, params = _backend.native_module(), _params(points, parameters, *options, points.shape[-2])
        scratch = _network.workspace(module.flow_loss_workspace(params, results[0]), parameters)
        tensors = [tensor.contiguous() for tensor in (points, scores, parameters)]
        module.flow_loss(params, *tensors, *results, scratch, torch.get_num_threads())
    return results


def _empty_loss(points, scores, parameters, *_):
    models, size = parameters.shape
    numbers = [(models,), (models, size), *[(models, points.shape[-1])] * 2]
    return tuple(parameters.new_empty(shape) for shape in numbers)


@torch.library.impl("eqflow::flow_train", "CompositeExplicitAutograd")
def _run_train(points, scores, parameters, moments, rates, mirror, *options):
    *options, rows, weight_decay = options
    first_step = options[-2]
    steps = torch.arange(first_step + 1, first_step + 1 + len(rates), dtype=torch.float64)
    adam = torch.stack([rates / (1 - BETAS[0] ** steps), 1 - BETAS[1] ** steps], -1).to(parameters.device)
    parameters, moments = (tensor.clone(memory_format=torch.contiguous_format) for tensor in (parameters, moments))
    losses = parameters.new_empty((len(parameters), len(rates)))
    if losses.numel():
        training = {"pool": len(points), "steps": len(rates), "weight_decay": weight_decay}
        module, params = _backend.native_module(), _params(points, parameters, *options, rows, **training)
        scratch = _network.workspace(module.flow_train_workspace(params, losses), parameters)
        tensors = points.contiguous(), scores.contiguous(), adam, mirror, parameters, moments, losses
        module.flow_train(params, *tensors, scratch, torch.get_num_threads())
    return parameters, moments, losses


@torch.library.register_fake("eqflow::flow_train")
def _(points, scores, parameters, moments, rates, *_):
    contiguous = {"memory_format": torch.contiguous_format}
    losses = parameters.new_empty((len(parameters), len(rates)))
    return torch.empty_like(parameters, **contiguous), torch.empty_like(moments, **contiguous), losses


torch.library.register_fake("eqflow::flow_loss", _empty_loss)


def _check_objective(rows: int, objective: str, probes: int, law: str, norm: str) -> None:
    _network.check_choice("objective", objective, OBJECTIVES)
    _network.check_choice("law", law, divergence.LAWS)
    _network.check_choice("norm", norm, NORMS)
    least_probes, least_rows = 2 if objective == "product" else 1, 1 if norm == "none" else 2
    if probes < least_probes:
        raise ValueError(f"expected probes from {least_probes} up for objective={objective!r}, got {probes}")
    if rows < least_rows:
        raise ValueError(f"expected a batch of {least_rows} rows or more for norm={norm!r}, got {rows}")


def _check_mirror(mirror: Tensor | None, parameters: Tensor) -> None:
    if mirror is None:
        return
    size = parameters.shape[1]
    if mirror.dtype != torch.int32 or mirror.shape != (size,) or mirror.device != parameters.device:
        raise ValueError(
            f"expected mirror [{size}] in torch.int32 on {parameters.device}, got {list(mirror.shape)} in "
            f"{mirror.dtype} on {mirror.device}"
        )
    partner = mirror.abs().long() - 1
    if (
        not bool(((partner >= 0) & (partner < size)).all())
        or not torch.equal(mirror[partner].abs().long() - 1, torch.arange(size, device=mirror.device))
        or not torch.equal(mirror[partner].sign(), mirror.sign())
    ):
        raise ValueError(
            f"expected mirror to hold partner + 1 with partners below {size} that name each other with one sign"
        )


def _refuse_derivatives(name: str, **tensors: Tensor) -> None:
    for argument, tensor in tensors.items():
        if _network.is_differentiated(tensor):
            raise NotImplementedError(
                f"{name} has no derivative, it gives the gradient itself: pass {argument}.detach(), or differentiate "
                "eqflow.ops.flow_loss.reference_loss"
            )


def flow_loss(
    points: Tensor,  # [rows, dimension], or [models, rows, dimension]
    scores: Tensor,  # like points
    parameters: Tensor,  # [models, size]
    network: MLP,
    *,
    objective: str = "expected",
    probes: int = 8,
    law: str = "gaussian",
    norm: str = "scalar",
    seed: int = 0,
    step: int = 0,
    first_model: int = 0,
    backend: str = "auto",
) -> FlowLoss:
    """The loss of an equilibrium flow on one batch and its gradient, by closed formulas.

        r = div v + v . s,   loss = mean of r^2 + (2 / k) strain        and others, see the top of this module

    Args:
        points, scores: x and the score there, float32; or float64, which the reference serves. Two axes: the same for
            every model.
        parameters: of the networks, in the type of the points; see `MLP`.
        network: the shape.
        objective: "exact", "expected", "sampled" or "product".
        probes: k, random vectors of a point; of "expected", how many "sampled" would draw. The exact loss has none.
        law: "gaussian" or "rademacher", of the probes.
        norm: what makes the velocity of the output: "scalar", "per-coordinate" or "none".
        seed, step, first_model: which probes; see `mlp_divergence`.
        backend: "auto", "reference" or "native".

    Returns:
        FlowLoss(loss, gradient, mean, scale), the last two being the statistics that the batch was normalised by.

    Raises:
        TypeError, ValueError: an argument is wrong.
        BackendError: the backend is not available here.
        NotImplementedError: a derivative was asked for.

    Example:
        >>> network = MLP(dimension=2, hidden=(8, 8), output_bias=False)
        >>> x = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.5]])
        >>> flow_loss(x, -x, network.initial(4, seed=0), network).gradient.shape == (4, network.size)
        True
    """
    _network.check_tensors(parameters, network, points=points, scores=scores)
    if scores.shape != points.shape:
        raise ValueError(f"expected scores like points, {list(points.shape)}, got {list(scores.shape)}")
    models, rows = len(parameters), points.shape[-2]
    _check_objective(rows, objective, probes, law, norm)
    _refuse_derivatives("flow_loss", points=points, scores=scores, parameters=parameters)
    signed = _network.check_counter(models, rows * probes * 4 * ((network.dimension + 3) // 4), seed, step, first_model)
    options = objective, probes, law, norm
    if _network.choose(backend, parameters, network) == "reference":
        with torch.enable_grad():
            weights = parameters.detach().requires_grad_()
            loss, *scales = reference_loss(points, scores, weights, network, *options, seed, step, first_model)
            (gradient,) = torch.autograd.grad(loss.sum(), weights)
        return FlowLoss(loss.detach(), gradient, *(scale.detach() for scale in scales))
    shape = network.hidden, network.frequencies, network.output_bias
    return FlowLoss(
        *torch.ops.eqflow.flow_loss.default(points, scores, parameters, *shape, *options, signed, step, first_model)
    )


def flow_train(
    points: Tensor,  # [pool, dimension]
    scores: Tensor,  # [pool, dimension]
    parameters: Tensor,  # [models, size]
    moments: Tensor | None,  # [2, models, size]
    network: MLP,
    *,
    rates: Tensor | Sequence[float],  # [steps]
    rows: int,
    first_step: int = 0,
    objective: str = "expected",
    probes: int = 8,
    law: str = "gaussian",
    norm: str = "scalar",
    weight_decay: float = 0.0,
    mirror: Tensor | None = None,  # [size], int32
    seed: int = 0,
    first_model: int = 0,
    backend: str = "auto",
) -> FlowTraining:
    """Many steps of Adam for many independent networks, in one call without Python between the steps.

    Every step draws `rows` rows of the pool with replacement, the same for the same (seed, step, index of the model),
    and takes the gradient of `flow_loss`. A model is the same alone, in any company, and over any split of its steps
    into calls, for any number of threads: bit for bit on the CPU.

    Args:
        points, scores: the pool, x and the score there, shared by all models.
        parameters: where to begin.
        moments: Adam's averages of the gradient and of its square; None: zeros.
        network: the shape.
        rates: learning rate of each step.
        rows: of a batch.
        first_step: number of steps taken before.
        objective, probes, law, norm: see `flow_loss`.
        weight_decay: times the parameters, added to the gradient, as torch.optim.Adam does.
        mirror: ties parameters in pairs: partner + 1 of each one, negative where the two are opposite. With weight
            decay added, derivatives g become (g[j] + sign g[partner]) / 2, so that tied parameters stay tied.
        seed, first_model: which minibatches and probes.
        backend: "auto", "reference" or "native".

    Returns:
        FlowTraining(parameters, moments, losses), all new; the loss is that of the batch before the step.

    Raises:
        TypeError, ValueError: an argument is wrong.
        BackendError: the backend is not available here.
        NotImplementedError: a derivative was asked for.

    Example:
        >>> network = MLP(dimension=2, hidden=(8, 8), output_bias=False)
        >>> x = torch.randn(100, 2, generator=torch.Generator().manual_seed(0))
        >>> trained = flow_train(x, -x, network.initial(3, seed=0), None, network, rates=[1e-2] * 5, rows=20)
        >>> trained.losses.shape
        torch.Size([3, 5])
    """
    _network.check_tensors(parameters, network, points=points, scores=scores)
    if points.ndim != 2 or scores.shape != points.shape or not len(points):
        raise ValueError(
            f"expected points and scores [pool, {network.dimension}] with one row or more, got {list(points.shape)} "
            f"and {list(scores.shape)}"
        )
    moments = parameters.new_zeros(2, *parameters.shape) if moments is None else moments
    if moments.shape != (2, *parameters.shape) or moments.dtype != parameters.dtype:
        raise ValueError(
            f"expected moments [2, {len(parameters)}, {network.size}] in {parameters.dtype}, got "
            f"{list(moments.shape)} in {moments.dtype}"
        )
    rates = torch.as_tensor(rates, dtype=torch.float64, device="cpu")
    if rates.ndim != 1:
        raise ValueError(f"expected rates [steps], got {list(rates.shape)}")
    _check_objective(rows, objective, probes, law, norm)
    if first_step < 0:
        raise ValueError(f"expected first_step from 0 up, got {first_step}")
    if not 0 <= weight_decay < float("inf"):
        raise ValueError(f"expected weight_decay from 0 up, got {weight_decay}")
    _check_mirror(mirror, parameters)
    _refuse_derivatives("flow_train", points=points, scores=scores, parameters=parameters, moments=moments)
    sites = rows * probes * 4 * ((network.dimension + 3) // 4)
    signed = _network.check_counter(len(parameters), sites, seed, first_step + len(rates), first_model)
    options = objective, probes, law, norm
    if _network.choose(backend, parameters, network) == "reference":
        arguments = points, scores, parameters, moments, network, rates, first_step, rows, *options, weight_decay
        return FlowTraining(*reference_train(*arguments, mirror, seed, first_model))
    shape = network.hidden, network.frequencies, network.output_bias
    counter = signed, first_step, first_model
    return FlowTraining(
        *torch.ops.eqflow.flow_train.default(
            points, scores, parameters, moments, rates, mirror, *shape, *options, *counter, rows, weight_decay
        )
    )
