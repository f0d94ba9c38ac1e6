"""What watches a rollout: averages, moments, histograms and rules. They stay on the device of the state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor


class Observer(Protocol):
    """Sees every `every`-th state; steps are counted from the beginning of the trajectory, not of the call.

    The state belongs to the rollout: read it, or clone it, at once. What an observer knows goes into checkpoints and
    comes back from there, as plain values and tensors, so that a resumed rollout is the undisturbed one.
    """

    every: int

    def observe(self, step: int, time: float, state: Tensor) -> bool | None:
        """Take note of a state; True ends the rollout."""

    def state_dict(self) -> dict:
        """What a checkpoint must hold."""

    def load_state_dict(self, values: dict) -> None:
        """Go on from there."""


class Watch:
    """What observers share: `every`, and the attributes, named in `_kept`, that a checkpoint holds."""

    _kept: tuple[str, ...] = ()

    def __init__(self, every: int):
        if every < 1:
            raise ValueError(f"expected every from 1 up, got {every}")
        self.every = every

    def options(self) -> dict:
        """What a checkpoint compares: plain values that are not kept."""
        plain = {name: value for name, value in vars(self).items() if isinstance(value, int | float | str)}
        return {name: value for name, value in plain.items() if name not in self._kept and name[0] != "_"}

    def state_dict(self) -> dict:
        return {name: getattr(self, name) for name in self._kept}

    def load_state_dict(self, values: dict) -> None:
        for name in self._kept:
            setattr(self, name, values[name])


def _on(tensor: Tensor | None, state: Tensor) -> Tensor | None:
    """A checkpoint may have been made on another device."""
    return tensor if tensor is None else tensor.to(state.device)


class RunningMean(Watch):
    """The mean of the states seen, site by site and sample by sample, in float64.

    Attributes:
        count: states seen.
        mean: as the state, or None before the first.
    """

    _kept = ("count", "mean")

    def __init__(self, every: int = 1):
        super().__init__(every)
        self.count, self.mean = 0, None

    def observe(self, step: int, time: float, state: Tensor) -> None:
        self.count += 1
        mean = torch.zeros_like(state, dtype=torch.float64) if self.mean is None else _on(self.mean, state)
        self.mean = mean + (state.double() - mean) / self.count


class MovingAverage(Watch):
    """The exponential moving average m <- decay m + (1 - decay) x, from the first state seen.

    Attributes:
        mean: as the state, in float64, or None before the first.
    """

    _kept = ("mean",)

    def __init__(self, decay: float, every: int = 1):
        super().__init__(every)
        if not 0 <= decay < 1:
            raise ValueError(f"expected decay in [0, 1), got {decay}")
        self.decay, self.mean = decay, None

    def observe(self, step: int, time: float, state: Tensor) -> None:
        if self.mean is None:
            self.mean = state.double()
        self.mean = self.decay * _on(self.mean, state) + (1 - self.decay) * state.double()


def _by_channel(state: Tensor) -> Tensor:
    """[channels, numbers] in float64; a coordinate of a point is a channel."""
    return state.double().transpose(0, 1).flatten(1)


class Moments(Watch):
    """Mean, covariance, skewness and kurtosis of each channel over samples, sites and time, from sums in float64.

    Attributes:
        count: numbers seen of each channel.
    """

    _kept = ("count", "powers", "products")

    def __init__(self, every: int = 1):
        super().__init__(every)
        self.count, self.powers, self.products = 0, None, None

    def observe(self, step: int, time: float, state: Tensor) -> None:
        values = _by_channel(state)
        squares = values * values
        powers = torch.stack([values.sum(1), squares.sum(1), (squares * values).sum(1), squares.square().sum(1)])
        products = values @ values.T
        self.count += values.shape[1]
        self.powers = powers if self.powers is None else _on(self.powers, state) + powers
        self.products = products if self.products is None else _on(self.products, state) + products

    @property
    def mean(self) -> Tensor:
        """[channels]."""
        return self.powers[0] / self.count

    @property
    def covariance(self) -> Tensor:
        """[channels, channels]."""
        return self.products / self.count - self.mean[:, None] * self.mean

    @property
    def skewness(self) -> Tensor:
        """[channels]: 0 for a Gaussian."""
        mean, square, cube, _ = self.powers / self.count
        variance = square - mean**2
        return (cube - 3 * mean * square + 2 * mean**3) / variance**1.5

    @property
    def kurtosis(self) -> Tensor:
        """[channels]: 3 for a Gaussian."""
        mean, square, cube, fourth = self.powers / self.count
        variance = square - mean**2
        return (fourth - 4 * mean * cube + 6 * mean**2 * square - 3 * mean**4) / variance**2


class Histogram(Watch):
    """Counts of each channel over samples, sites and time; the first and last bin take what lies outside.

    Attributes:
        edges: [bins + 1].
        counts: int64 [channels, bins], or None before the first state.
    """

    _kept = ("counts",)

    def __init__(self, low: float, high: float, bins: int = 100, every: int = 1):
        super().__init__(every)
        if not low < high or bins < 1:
            raise ValueError(f"expected low < high and bins from 1 up, got {low}, {high} and {bins}")
        self.low, self.high, self.bins, self.counts = low, high, bins, None

    @property
    def edges(self) -> Tensor:
        return torch.linspace(self.low, self.high, self.bins + 1, dtype=torch.float64)

    def observe(self, step: int, time: float, state: Tensor) -> None:
        scaled = (_by_channel(state) - self.low) * (self.bins / (self.high - self.low))
        bins = scaled.floor().clamp(0, self.bins - 1).long()
        channels = torch.arange(len(bins), device=state.device)[:, None]
        found = torch.bincount((bins + channels * self.bins).flatten(), minlength=len(bins) * self.bins)
        found = found.view(len(bins), self.bins)
        self.counts = found if self.counts is None else _on(self.counts, state) + found


class StopRule(Watch):
    """Ends the rollout at the first state for which `rule(step, time, state)` is true.

    Attributes:
        stopped: the step at which it did, or None.
    """

    _kept = ("stopped",)

    def __init__(self, rule: Callable[[int, float, Tensor], bool], every: int = 1):
        super().__init__(every)
        self.rule, self.stopped = rule, None

    def observe(self, step: int, time: float, state: Tensor) -> bool:
        if self.rule(step, time, state):
            self.stopped = step
        return self.stopped is not None


class Seen(Watch):
    """Calls `callback(step, time, state)`: for films, and for what is measured on the way."""

    def __init__(self, callback: Callable[[int, float, Tensor], object], every: int = 1):
        super().__init__(every)
        self._callback = callback

    def observe(self, step: int, time: float, state: Tensor) -> None:
        self._callback(step, time, state)


class Watcher(Watch):
    """Calls `callback(step, time)`: for progress bars."""

    def __init__(self, callback: Callable[[int, float], object], every: int = 1):
        super().__init__(every)
        self._callback = callback

    def observe(self, step: int, time: float, state: Tensor) -> None:
        self._callback(step, time)
