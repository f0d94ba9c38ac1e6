"""Flows learned by networks: many independent models of one shape, each a velocity field."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from eqflow.dynamics.field import Field, sense
from eqflow.dynamics.flow_settings import FlowSettings
from eqflow.ops import MLP, Divergence, mlp_divergence
from eqflow.ops.divergence import pushforward

_CHUNK = 2**22  # numbers of one layer at a time


@dataclass(frozen=True, eq=False)
class LearnedFlow(Field):
    """v(x) of one network or of many; `flow[i]` is a model, `flow[2:5]` three of them.

    Centre and scale of the output are part of the last layer. All is in the units of the points of the training.

    Args:
        network: shape of every model, with an output bias.
        parameters: [models, size].
        losses: of the training, [models, steps].

    Raises:
        ValueError: the parameters do not fit the network.

    Example:
        >>> flow = LearnedFlow.random(2, FlowSettings(hidden=(16, 16)), models=3, seed=0)
        >>> len(flow), flow.velocities(torch.zeros(5, 2)).shape, flow[0].velocity(torch.zeros(5, 2)).shape
        (3, torch.Size([3, 5, 2]), torch.Size([5, 2]))
    """

    network: MLP
    parameters: Tensor
    losses: Tensor | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if self.parameters.ndim != 2 or self.parameters.shape[1] != self.network.size or not self.network.output_bias:
            raise ValueError(
                f"expected parameters [models, {self.network.size}] of a network with an output bias, got "
                f"{list(self.parameters.shape)} and output_bias={self.network.output_bias}"
            )

    @classmethod
    def random(
        cls, dimension: int, settings: FlowSettings, *, models: int = 1, first_model: int = 0, seed: int = 0
    ) -> LearnedFlow:
        """Untrained networks as they are initialised: what a learned flow must differ from."""
        network = MLP(dimension, settings.hidden, settings.frequencies)
        return cls(network, network.initial(models, seed=seed, first_model=first_model))

    @property
    def dimension(self) -> int:
        return self.network.dimension

    def __len__(self) -> int:
        return len(self.parameters)

    def __getitem__(self, index: int | slice) -> LearnedFlow:
        chosen = slice(index, index + 1 or None) if isinstance(index, int) else index
        losses = None if self.losses is None else self.losses[chosen]
        flow = replace(self, parameters=self.parameters[chosen], losses=losses)
        if not len(flow):
            raise IndexError(f"expected a model below {len(self)}, got {index}")
        return flow

    def velocities(
        self,
        points: Tensor,  # [rows, dimension]
    ) -> Tensor:
        """v of every model, [models, rows, dimension]."""
        parameters = self.parameters.to(points)
        return self._in_chunks(points, lambda part: [self.network.velocity(part, parameters)])[0]

    def velocity(self, points: Tensor) -> Tensor:
        """v of the only model, [rows, dimension]."""
        return self.velocities(points)[self._only]

    def derivatives(
        self,
        points: Tensor,  # [rows, dimension]
        *,
        law: str = "gaussian",
    ) -> Divergence:
        """Velocity, exact divergence and strain of every model; see `eqflow.ops.divergence`."""
        parameters = self.parameters.to(points)
        found = self._in_chunks(
            points, lambda part: mlp_divergence(part, parameters, self.network, law=law, strain=True)
        )
        return Divergence(*found)

    def divergence(
        self,
        points: Tensor,  # [rows, dimension]
    ) -> Tensor:
        """div v of the only model, [rows]."""
        parameters = self.parameters.to(points)
        (found,) = self._in_chunks(points, lambda part: mlp_divergence(part, parameters, self.network)[1:2])
        return found[self._only]

    def jacobian(
        self,
        points: Tensor,  # [rows, dimension]
    ) -> Tensor:
        """J_ij = dv_i/dx_j of the only model, [rows, dimension, dimension]."""
        basis = torch.eye(self.dimension, dtype=points.dtype, device=points.device)[None, None]
        parameters = self.parameters.to(points)
        (columns,) = self._in_chunks(points, lambda part: pushforward(part, parameters, self.network, basis)[1:])
        return columns[self._only].mT

    @property
    def _only(self) -> int:
        if len(self) != 1:
            raise ValueError(f"expected one model, got {len(self)}: choose one, flow[0]")
        return 0

    def _in_chunks(self, points: Tensor, function: Callable[[Tensor], tuple[Tensor, ...]]) -> list[Tensor]:
        """What a function of some points gives, put together along the rows."""
        if points.ndim != 2 or points.shape[1] != self.dimension:
            raise ValueError(f"expected points [rows, {self.dimension}], got {list(points.shape)}")
        rows = max(_CHUNK // (len(self) * max(self.network.hidden) * self.dimension), 1)
        return [torch.cat(parts, 1) for parts in zip(*map(function, points.split(rows)), strict=True)]

    def calibrated(
        self,
        points: Tensor,  # [rows, dimension]
        *,
        norm: str = "scalar",
        signs: Tensor | None = None,  # [dimension]
    ) -> LearnedFlow:
        """The flow with mean 0 and mean |v|^2 = dimension ("scalar") or mean v_i^2 = 1 each over the points.

        Of v and -v, both of which keep the density, the one is taken that turns counterclockwise: see `sense`.

        Args:
            points: of the density.
            norm: "scalar" or "per-coordinate".
            signs: of v(Px) = diag(signs) v(x), if the flow has that symmetry: what it makes 0 is not estimated.

        Raises:
            ValueError: a model is at rest.
        """
        output = self.velocities(points).double()
        mean = output.mean(1)
        if signs is not None:
            mean = torch.where(signs.to(mean) < 0, 0.0, mean)
        centred = output - mean[:, None]
        square = centred.square().mean(1)
        square = square.mean(-1, keepdim=True).expand_as(square) if norm == "scalar" else square
        if not (square > 0).all():
            model = int((~(square > 0).all(1)).nonzero()[0])
            raise ValueError(f"expected a flow that moves, but model {model} is at rest: train it with a smaller rate")
        moments = points.double().T @ (centred / square.sqrt()[:, None])
        gain = sense(moments)[:, None] / square.sqrt()
        parameters = self.parameters.clone()
        weight, bias = self.network.layers(parameters)[-1]
        bias.copy_((bias - mean) * gain)
        weight.mul_(gain[..., None])
        return replace(self, parameters=parameters)

    def reversed(self) -> LearnedFlow:
        """The flows with time running the other way."""
        parameters = self.parameters.clone()
        for part in self.network.layers(parameters)[-1]:
            part.neg_()
        return replace(self, parameters=parameters)

    def to(self, *to) -> LearnedFlow:
        """The same flows elsewhere; takes what Tensor.to takes."""
        return replace(self, parameters=self.parameters.to(*to))

    def config(self) -> dict:
        """The shape of the network as plain values."""
        return {
            "dimension": self.dimension,
            "hidden": list(self.network.hidden),
            "frequencies": self.network.frequencies,
        }

    def state_dict(self) -> dict[str, Tensor]:
        """Plain tensors; with `config()` enough for `from_state_dict`."""
        return {"parameters": self.parameters} | ({} if self.losses is None else {"losses": self.losses})

    @classmethod
    def from_state_dict(cls, config: dict, state: dict[str, Tensor]) -> LearnedFlow:
        """The flow of a saved `config()` and `state_dict()`."""
        network = MLP(config["dimension"], tuple(config["hidden"]), config["frequencies"])
        return cls(network, state["parameters"], losses=state.get("losses"))
