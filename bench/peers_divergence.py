"""How else one gets the loss of an equilibrium flow and its gradient: automatic differentiation in PyTorch and JAX."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call, jacfwd, jacrev, jvp, vmap

from eqflow.ops import MLP
from eqflow.ops.flow_loss import EPSILON, statistics

Run = Callable[[], tuple[Tensor, Tensor]]  # loss and gradient


class Case:
    """One network, batch and set of probes, as modules of PyTorch have them."""

    def __init__(self, network: MLP, parameters: Tensor, points: Tensor, scores: Tensor, probes: Tensor) -> None:
        widths = [network.inputs, *network.hidden]
        layers = [module for pair in itertools.pairwise(widths) for module in _hidden(*pair)]
        self.module = torch.nn.Sequential(*layers, torch.nn.Linear(widths[-1], network.dimension, network.output_bias))
        torch.nn.utils.vector_to_parameters(parameters[0], self.module.parameters())
        self.points, self.scores = points, scores
        self.probes = probes  # [rows, probes, dimension]
        self.basis = torch.eye(network.dimension).expand(len(points), -1, -1)

    def finish(self, output: Tensor, pushed: Tensor, directions: Tensor, exact: bool) -> tuple[Tensor, Tensor]:
        """Loss and gradient from u and J z (or z^T J), [rows, directions, dimension]."""
        mean, scale = (part[0] for part in statistics(output[None], "scalar"))
        traces = (directions * pushed / scale).sum(-1)
        divergence = traces.sum(-1) if exact else traces.mean(-1)
        loss = (divergence + ((output - mean) / scale * self.scores).sum(-1)).square().mean()
        gradient = torch.autograd.grad(loss, list(self.module.parameters()))
        return loss.detach(), torch.cat([part.flatten() for part in gradient])


def _hidden(into: int, out: int) -> list[torch.nn.Module]:
    return [torch.nn.Linear(into, out), torch.nn.SiLU()]


def double_backward(case: Case, exact: bool) -> Run:
    """The paper's: one vector-Jacobian product a probe, whose graph is kept for the gradient."""
    directions = case.basis if exact else case.probes

    def run() -> tuple[Tensor, Tensor]:
        points = case.points.detach().requires_grad_()
        output = case.module(points)
        pulled = [
            torch.autograd.grad(output, points, directions[:, j], create_graph=True)[0]
            for j in range(directions.shape[1])
        ]
        return case.finish(output, torch.stack(pulled, 1), directions, exact)

    return run


def jvp_and_vmap(case: Case, exact: bool) -> Run:
    """Forward mode of torch.func, all directions at once."""
    directions = case.basis if exact else case.probes

    def run() -> tuple[Tensor, Tensor]:
        parameters = dict(case.module.named_parameters())

        def push(direction: Tensor) -> tuple[Tensor, Tensor]:
            return jvp(lambda x: functional_call(case.module, parameters, (x,)), (case.points,), (direction,))

        output, pushed = vmap(push, in_dims=1, out_dims=(None, 1))(directions)
        return case.finish(output, pushed, directions, exact)

    return run


def _jacobian(transform: Callable) -> Callable[[Case, bool], Run]:
    def peer(case: Case, exact: bool) -> Run:
        def run() -> tuple[Tensor, Tensor]:
            parameters = dict(case.module.named_parameters())

            def twice(x: Tensor) -> tuple[Tensor, Tensor]:
                output = functional_call(case.module, parameters, (x,))
                return output, output

            matrices, output = vmap(transform(twice, has_aux=True))(case.points)
            return case.finish(output, matrices.mT, case.basis, True)

        return run

    return peer


def tangents(case: Case, exact: bool) -> Run:
    """The chain rule by hand, forward, in plain PyTorch; the gradient by its autograd."""
    directions = case.basis if exact else case.probes

    def run() -> tuple[Tensor, Tensor]:
        state, tangent = case.points, directions
        for layer in case.module:
            if isinstance(layer, torch.nn.Linear):
                state, tangent = layer(state), F.linear(tangent, layer.weight)
            else:
                gate = state.sigmoid()
                tangent = (gate * (1 + state * (1 - gate)))[:, None] * tangent
                state = state * gate
        return case.finish(state, tangent, directions, exact)

    return run


def _jax(push: Callable) -> Callable[[Case, bool], Run]:
    """JAX, compiled. push(function, point, directions) -> output and J z of one row."""

    def peer(case: Case, exact: bool) -> Run:
        import jax
        import jax.numpy as jnp

        def array(tensor: Tensor):
            return jnp.asarray(tensor.detach().numpy())

        directions = array(case.basis if exact else case.probes)
        points, scores = array(case.points), array(case.scores)
        linear = [module for module in case.module if isinstance(module, torch.nn.Linear)]
        weights = [(array(m.weight), *([] if m.bias is None else [array(m.bias)])) for m in linear]

        def velocity(weights, state):
            for index, (weight, *bias) in enumerate(weights):
                state = (jax.nn.silu(state) if index else state) @ weight.T
                state = state + bias[0] if bias else state
            return state

        def loss(weights, points, scores, directions):
            output, pushed = jax.vmap(lambda x, z: push(lambda y: velocity(weights, y), x, z))(points, directions)
            scale = jnp.sqrt(output.var(0).mean() + EPSILON)
            traces = (directions * pushed / scale).sum(-1)
            divergence = traces.sum(-1) if exact else traces.mean(-1)
            return ((divergence + ((output - output.mean(0)) / scale * scores).sum(-1)) ** 2).mean()

        compiled = jax.jit(jax.value_and_grad(loss))

        def run() -> tuple[Tensor, Tensor]:
            value, gradient = jax.block_until_ready(compiled(weights, points, scores, directions))
            flat = [torch.from_dlpack(part).flatten() for layer in gradient for part in layer]
            return torch.from_dlpack(value), torch.cat(flat)

        return run

    return peer


def _jax_jvp(function: Callable, point, directions):
    import jax

    output, push = jax.linearize(function, point)
    return output, jax.vmap(push)(directions)


def _folx(function: Callable, point, directions):
    import folx

    result = folx.forward_laplacian(function)(point)  # its Laplacian is not used, and XLA leaves it out
    return result.x, directions @ result.jacobian.dense_array


EXACT: dict[str, Callable[[Case, bool], Run]] = {
    "double backward": double_backward,
    "torch.func jvp + vmap": jvp_and_vmap,
    "torch.func jacfwd": _jacobian(jacfwd),
    "torch.func jacrev": _jacobian(jacrev),
    "tangents in plain PyTorch": tangents,
    "JAX linearize + vmap": _jax(_jax_jvp),
    "folx": _jax(_folx),
}
SAMPLED = {
    name: EXACT[name]
    for name in ("double backward", "torch.func jvp + vmap", "tangents in plain PyTorch", "JAX linearize + vmap")
}
