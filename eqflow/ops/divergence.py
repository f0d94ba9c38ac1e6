"""Velocity, divergence and strain of multilayer perceptrons in one pass, exactly or by Hutchinson's estimator.

J_ij = dv_i/dx_j,   div v = tr J,   E = (J + J^T) / 2
tangents   J z for every basis vector z: exact for every network
bilinear   div v = a'(z_2)^T (W_2 o (W_1 W_3)^T) a'(z_1): exact for two hidden layers without encoding, one more
           product
probes     div v ~ mean over k of z_k^T J z_k with random z_k, whose variance is 2 strain / k:
           strain = |E|_F^2 for Gaussian z, |E|_F^2 - sum of E_ii^2 for Rademacher z
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad

from eqflow.ops import _backend, _network, philox
from eqflow.ops.mlp import MLP
from eqflow.ops.normal import normal

METHODS = ("tangents", "bilinear", "probes")  # the order is that of the enumerations in csrc/kernels.h
LAWS = ("gaussian", "rademacher")
_PROBES = philox.STREAMS["probes"]


class Divergence(NamedTuple):
    """What `mlp_divergence` gives."""

    velocity: Tensor  # [models, rows, dimension]
    divergence: Tensor  # [models, rows]
    strain: Tensor | None  # [models, rows]: half the variance of the divergence by one probe; None where not asked for


def draw_probes(
    models: int,
    rows: int,
    probes: int,
    dimension: int,
    *,
    law: str,
    seed: int,
    step: int,
    first_model: int = 0,
    device: str | torch.device = "cpu",
) -> Tensor:
    """Random vectors z with E[z z^T] = I, [models, rows, probes, dimension].

    Probe number p = row * probes + j of a model begins at site p * 4 * ceil(dimension / 4) of its sample (= the model):
    Gaussian: the normals of `ops.normal`. Rademacher: +1 where the top bit of the word of `philox.words` is 0, else -1.
    """
    padded = 4 * ((dimension + 3) // 4)
    sites, counter = rows * probes * padded, {"seed": seed, "step": step, "stream": _PROBES}
    if law == "gaussian":
        numbers = normal(models, sites, first_sample=first_model, device=device, backend="auto", **counter)
    else:
        indices = torch.arange(first_model, first_model + models, device=device)
        numbers = 1.0 - 2.0 * (philox.words(indices, sites, **counter) >> 31).float()
    return numbers.view(models, rows, probes, padded)[..., :dimension]


def pushforward(
    points: Tensor,  # [rows, dimension], or [models, rows, dimension]
    parameters: Tensor,  # [models, size]
    network: MLP,
    directions: Tensor,  # [models or 1, rows or 1, directions, dimension]
) -> tuple[Tensor, Tensor]:
    """The specification: v [models, rows, dimension] and J z [models, rows, directions, dimension], by tangents."""
    state, slopes = network.encode(points), [torch.ones_like(points)]
    for octave in range(network.frequencies):
        angle = 2.0**octave * points
        slopes += [2.0**octave * angle.cos(), -(2.0**octave) * angle.sin()]
    tangent = torch.cat([slope[..., None, :] * directions for slope in slopes], -1)
    for index, (weight, bias) in enumerate(network.layers(parameters)):
        if index:
            gate = state.sigmoid()
            tangent = (gate * (1 + state * (1 - gate)))[..., None, :] * tangent
            state = state * gate
        shape = tangent.shape[-3:-1]
        state, tangent = state @ weight.mT, (tangent.flatten(-3, -2) @ weight.mT).unflatten(-2, shape)
        state = state if bias is None else state + bias[:, None]
    return state, tangent


def reference(
    points: Tensor,
    parameters: Tensor,
    network: MLP,
    directions: Tensor | None,  # random [models, rows, probes, dimension]; None: the basis, and all is exact
    law: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """The specification: v, the divergence, and the strain (of the exact J: meaningless with random directions)."""
    if directions is None:
        basis = torch.eye(network.dimension, dtype=points.dtype, device=points.device)
        velocity, columns = pushforward(points, parameters, network, basis[None, None])
        diagonal = columns.diagonal(dim1=-2, dim2=-1)
        strain = ((columns + columns.mT) / 2).square().sum((-2, -1))
        if law == "rademacher":
            strain = strain - diagonal.square().sum(-1)
        return velocity, diagonal.sum(-1), strain
    velocity, pushed = pushforward(points, parameters, network, directions)
    return velocity, (directions * pushed).sum(-1).mean(-1), torch.zeros_like(velocity[..., 0])


def bilinear(
    points: Tensor,  # [rows, dimension], or [models, rows, dimension]
    parameters: Tensor,  # [models, size]
    network: MLP,  # two hidden layers, no encoding
) -> tuple[Tensor, Tensor]:
    """The specification: v and div v = d_2^T (W_2 o (W_1 W_3)^T) d_1 with d_l = a'(z_l)."""
    (first, first_bias), (second, second_bias), (last, last_bias) = network.layers(parameters)
    state, slopes = points, []
    for weight, bias in ((first, first_bias), (second, second_bias)):
        state = state @ weight.mT + bias[:, None]
        gate = state.sigmoid()
        slopes.append(gate * (1 + state * (1 - gate)))
        state = state * gate
    velocity = state @ last.mT
    velocity = velocity if last_bias is None else velocity + last_bias[:, None]
    core = second * (first @ last).mT
    return velocity, (slopes[1] * (slopes[0] @ core.mT)).sum(-1)


_ARGUMENTS = (
    "Tensor points, Tensor parameters, int[] hidden, int frequencies, bool output_bias, str method, int probes, "
    "str law, bool strain, int seed, int step, int first_model, str backend"
)
torch.library.define(
    "eqflow::mlp_divergence", f"({_ARGUMENTS}) -> (Tensor, Tensor, Tensor)", tags=[torch.Tag.pt2_compliant_tag]
)
torch.library.define(
    "eqflow::mlp_divergence_gradient",
    f"({_ARGUMENTS}, Tensor of_velocity, Tensor of_divergence, Tensor of_strain) -> Tensor",
    tags=[torch.Tag.pt2_compliant_tag],
)


def _params(points, parameters, hidden, frequencies, output_bias, method, probes, law, seed, step, first_model):
    return _backend.native_module().DivergenceParams(
        network=_network.native_shape(hidden, frequencies, output_bias, points.shape[-1]),
        models=len(parameters),
        rows=points.shape[-2],
        shared_points=points.ndim == 2,
        method=METHODS.index(method),
        law=LAWS.index(law),
        probes=probes,
        seed=seed,
        step=step,
        first_model=first_model,
    )


def _empty(points: Tensor, parameters: Tensor, strain: bool) -> tuple[Tensor, Tensor, Tensor]:
    shape = len(parameters), points.shape[-2]
    return (
        points.new_empty((*shape, points.shape[-1])),
        points.new_empty(shape),
        points.new_empty(shape if strain else (0,)),
    )


@torch.library.impl("eqflow::mlp_divergence", "CompositeExplicitAutograd")
def _run(
    points, parameters, hidden, frequencies, output_bias, method, probes, law, strain, seed, step, first_model, backend
):
    velocity, divergence, strains = results = _empty(points, parameters, strain)
    if not divergence.numel():
        return results
    points, parameters = points.contiguous(), parameters.contiguous()
    options = hidden, frequencies, output_bias, method, probes, law, seed & (2**64 - 1), step, first_model
    filled = velocity, divergence, strains if strain else None
    if backend == "triton":
        _backend.triton_kernels("divergence").divergence(points, parameters, *options, *filled)
        return results
    module, params = _backend.native_module(), _params(points, parameters, *options)
    scratch = _network.workspace(module.divergence_workspace(params, velocity), velocity)
    module.divergence(params, points, parameters, *filled, scratch, torch.get_num_threads())
    return results


@torch.library.impl("eqflow::mlp_divergence_gradient", "CompositeExplicitAutograd")
def _run_gradient(
    points,
    parameters,
    hidden,
    frequencies,
    output_bias,
    method,
    probes,
    law,
    strain,
    seed,
    step,
    first_model,
    backend,
    *upstream,
):
    if not points.numel():
        return torch.zeros_like(parameters, memory_format=torch.contiguous_format)
    gradient = torch.empty_like(parameters, memory_format=torch.contiguous_format)
    points, parameters, *upstream = (tensor.contiguous() for tensor in (points, parameters, *upstream))
    options = hidden, frequencies, output_bias, method, probes, law, seed & (2**64 - 1), step, first_model
    wanted = *upstream[:2], upstream[2] if strain else None
    if backend == "triton":
        _backend.triton_kernels("divergence").divergence_gradient(points, parameters, *options, *wanted, gradient)
        return gradient
    module, params = _backend.native_module(), _params(points, parameters, *options)
    scratch = _network.workspace(module.divergence_gradient_workspace(params, gradient), gradient)
    module.divergence_gradient(params, points, parameters, *wanted, gradient, scratch, torch.get_num_threads())
    return gradient


@torch.library.register_fake("eqflow::mlp_divergence")
def _(points, parameters, hidden, frequencies, output_bias, method, probes, law, strain, *_):
    return _empty(points, parameters, strain)


@torch.library.register_fake("eqflow::mlp_divergence_gradient")
def _(points, parameters, *_):
    return torch.empty_like(parameters, memory_format=torch.contiguous_format)


def _remember(ctx, inputs, output) -> None:
    points, parameters, *ctx.options = inputs
    ctx.save_for_backward(points, parameters)


def _backward(ctx, *upstream):
    gradient = torch.ops.eqflow.mlp_divergence_gradient.default(*ctx.saved_tensors, *ctx.options, *upstream)
    return None, gradient, *[None] * len(ctx.options)


def _refuse(ctx, *_):
    raise NotImplementedError("the native kernels have no second derivative: use backend='reference'")


torch.library.register_autograd("eqflow::mlp_divergence", _backward, setup_context=_remember)
torch.library.register_autograd("eqflow::mlp_divergence_gradient", _refuse)


def serves_bilinear(network: MLP) -> bool:
    """Whether the bilinear form of the divergence holds."""
    return len(network.hidden) == 2 and not network.frequencies


def mlp_divergence(
    points: Tensor,  # [rows, dimension], or [models, rows, dimension]
    parameters: Tensor,  # [models, size]
    network: MLP,
    *,
    method: str = "auto",
    probes: int = 1,
    law: str = "gaussian",
    strain: bool = False,
    seed: int = 0,
    step: int = 0,
    first_model: int = 0,
    backend: str = "auto",
) -> Divergence:
    """Velocity and divergence of networks at points, in one pass that stores no Jacobian.

        div v = tr J,   J_ij = dv_i / dx_j;   strain = |E|_F^2,   E = (J + J^T) / 2

    Differentiable with respect to the parameters, by gradients in closed form. The native kernels add up in float32,
    in an order that does not depend on the number of threads or of models.

    Args:
        points: x, float32; or float64, which the reference serves. Two axes: the same for every model.
        parameters: of the networks, in the type of the points; see `MLP`.
        network: the shape.
        method: "tangents", exact for every network; "bilinear", exact and cheaper for two hidden layers without
            encoding; "probes", Hutchinson's unbiased estimate; "auto", bilinear where it serves, else tangents.
        probes: random vectors of a point and model, for "probes".
        law: "gaussian" or "rademacher", of the probes. The strain of the latter leaves out the squares of the diagonal:
            2 strain is the variance of the divergence by one probe.
        strain: whether to compute it; by tangents alone.
        seed, step, first_model: which probes: a function of (seed, step, index of the model, row, probe). Models count
            from first_model.
        backend: "auto", "reference", "native" or, but for "bilinear", "triton". The reference is differentiable in
            everything, and more than once.

    Returns:
        Divergence(velocity, divergence, strain); `strain` is None where not asked for.

    Raises:
        TypeError, ValueError: an argument is wrong.
        BackendError: the backend is not available here.
        NotImplementedError: the kernels were asked for a derivative with respect to the points, forward mode or a
            second derivative.

    Example:
        >>> network = MLP(dimension=2, hidden=(8, 8))
        >>> weights = network.initial(3, seed=0)
        >>> mlp_divergence(torch.zeros(5, 2), weights, network, strain=True).strain.shape
        torch.Size([3, 5])
    """
    _network.check_tensors(parameters, network, points=points)
    _network.check_choice("method", method, ("auto", *METHODS))
    _network.check_choice("law", law, LAWS)
    backend = _network.choose(backend, parameters, network, triton=method != "bilinear")
    if method == "auto":
        method = "bilinear" if serves_bilinear(network) and not strain and backend != "triton" else "tangents"
    if method == "bilinear" and not serves_bilinear(network):
        raise ValueError(
            f"the bilinear form needs two hidden layers and no encoding, got {network}: use method='tangents'"
        )
    if strain and method != "tangents":
        raise ValueError(f"the strain comes from tangents alone, got method={method!r}: use method='tangents'")
    if probes < 1:
        raise ValueError(f"expected probes from 1 up, got {probes}")
    models, rows = len(parameters), points.shape[-2]
    sites = rows * probes * 4 * ((network.dimension + 3) // 4) if method == "probes" else 0
    signed = _network.check_counter(models, sites, seed, step, first_model)
    if backend == "reference":
        if method == "bilinear":
            return Divergence(*bilinear(points, parameters, network), None)
        directions = None
        if method == "probes":
            counter = {"seed": seed, "step": step, "first_model": first_model, "device": points.device}
            directions = draw_probes(models, rows, probes, network.dimension, law=law, **counter).to(points)
        results = reference(points, parameters, network, directions, law)
        return Divergence(*results[:2], results[2] if strain else None)
    if _network.is_differentiated(points):
        raise NotImplementedError(
            "the kernels have no derivative with respect to the points: pass points.detach(), or use "
            "backend='reference'"
        )
    if forward_ad.unpack_dual(parameters).tangent is not None:
        raise NotImplementedError("the native kernels have no forward mode: use backend='reference'")
    results = torch.ops.eqflow.mlp_divergence.default(
        points, parameters, network.hidden, network.frequencies, network.output_bias, method, probes, law, strain,
        signed, step, first_model, backend,
    )  # fmt: skip
    return Divergence(*results[:2], results[2] if strain else None)
