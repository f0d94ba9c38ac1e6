"""A training that goes on after a stop: networks, optimiser and history as plain tensors."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

State = dict[str, Tensor]


def identity(points: Tensor, *about: Any) -> Tensor:
    """What a checkpoint must agree on, the data and the options, as a hash."""
    text = " ".join(map(str, [*about, list(points.shape)])).encode()
    return torch.tensor(list(hashlib.sha256(text + points.cpu().contiguous().numpy().tobytes()).digest()))


class Run:
    """One training: what it changes, and everything that a checkpoint must hold.

    A subclass says what a step is, `advance`, and what is looked at now and then, `look`.

    Args:
        networks: by name; the optimiser changes some of them.
        optimiser: of the Adam family.
        identity: of points and options, see `identity`.
    """

    def __init__(self, networks: Mapping[str, nn.Module], optimiser: torch.optim.Optimizer, identity: Tensor):
        self.networks, self.optimiser, self.identity = dict(networks), optimiser, identity
        self.step, self.history, self.losses = 0, [], []

    def advance(self) -> Tensor:
        """One step; the loss before it, [] and without a gradient."""
        raise NotImplementedError

    def look(self) -> float:
        """The number that stands beside the training loss in the history."""
        raise NotImplementedError

    def state(self) -> State:
        """Everything that goes on, as tensors of its own."""
        parts = {name: network.state_dict() for name, network in self.networks.items()} | {"adam": {}}
        for index, values in self.optimiser.state_dict()["state"].items():
            parts["adam"] |= {f"{index}.{name}": value for name, value in values.items()}
        tensors = {f"{part}.{name}": value for part, values in parts.items() for name, value in values.items()}
        tensors |= {"step": torch.tensor(self.step), "history": self.table(), "identity": self.identity}
        tensors["losses"] = torch.stack(self.losses) if self.losses else torch.empty(0)
        return {name: value.detach().clone() for name, value in tensors.items()}

    def load(self, state: State) -> None:
        """Stand where a checkpoint stood.

        Raises:
            ValueError: it belongs to another training.
        """
        if not torch.equal(state.get("identity", self.identity[:0]).cpu(), self.identity):
            raise ValueError(
                "expected the checkpoint of this training, got one of other points, another shape or other options: "
                "start without it, or train as it was"
            )
        self.step, self.history = int(state["step"]), state["history"].tolist()
        self.losses = list(state["losses"])

        def part(name: str) -> State:
            return {key.removeprefix(f"{name}."): value for key, value in state.items() if key.startswith(f"{name}.")}

        for name, network in self.networks.items():
            network.load_state_dict(part(name))
        adam: dict[int, State] = {}
        for key, value in part("adam").items():
            index, name = key.split(".")
            adam.setdefault(int(index), {})[name] = value.clone()
        self.optimiser.load_state_dict({**self.optimiser.state_dict(), "state": adam})

    def table(self) -> Tensor:
        """The history, float64 [looks, 3]: step, mean training loss since the look before, and what was looked at."""
        return torch.tensor(self.history, dtype=torch.float64).view(-1, 3)

    def follow(
        self,
        steps: int,
        every: int,
        save: Callable[[State], None] | None = None,
        progress: Callable[[int, float, float], None] | None = None,
        *,
        watch: Callable[[int], bool] | None = None,
    ) -> None:
        """To the last step, with a look, a checkpoint and a word every so often.

        Args:
            steps: the last one.
            every: steps between two looks.
            save: takes a checkpoint at each look, and whenever `watch` asks for one.
            progress: takes (step, mean training loss since the look before, what was looked at).
            watch: takes the number of every step, and says whether it is time for a checkpoint.

        Raises:
            FloatingPointError: the loss is no number any more.
        """
        while self.step < steps:
            with torch.enable_grad():
                self.losses.append(self.advance())
            looking = self.step % every == 0 or self.step == steps
            if looking:
                loss, seen = float(torch.stack(self.losses).double().mean()), self.look()
                if not math.isfinite(loss):
                    raise FloatingPointError(f"the loss became {loss} before step {self.step}: take a smaller rate")
                self.losses.clear()
                self.history.append([self.step, loss, seen])
            wanted = watch is not None and watch(self.step)
            if save is not None and (looking or wanted):
                save(self.state())
            if progress is not None and looking:
                progress(self.step, loss, seen)


def cosine(fraction: float) -> float:
    """Half a cosine from 1 to 0."""
    return (1 + math.cos(math.pi * fraction)) / 2
