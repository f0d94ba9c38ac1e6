"""A denoiser for patterns: fields on a periodic grid, cleaned by a network that is preconditioned for the noise.

Two coordinates of one noised field, with alpha the squared coefficient of the signal and sigma^2 = (1 - alpha) / alpha:

    y = x_0 + sigma epsilon                  what the denoiser takes, D(y) = E[x_0 | y]
    x = sqrt(alpha) y                        what rollouts move, with the score s = (sqrt(alpha) D - x) / (1 - alpha)
      = sqrt(alpha) x_0 + sqrt(1 - alpha) epsilon
"""

from __future__ import annotations

import copy
import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from eqflow import ops
from eqflow.ops import philox
from eqflow.score.contract import folding
from eqflow.score.networks import Local, UNet
from eqflow.score.pattern_shape import PatternShape

_WEIGHTS = philox.STREAMS["weights"]


class PatternDenoiser(nn.Module):
    """D(y) = mean + c_skip z + c_out f(c_in z), z = y - mean: the expected clean field.

    With t = std^2 + sigma^2 "edm" has c_skip = std^2 / t, c_out = sigma std / sqrt(t), c_in = 1 / sqrt(t), channel by
    channel, so that f sees and estimates numbers of unit variance; "v" has mean 0 and std 1 there; "x0" has c_skip = 0,
    c_out = 1.

    Args:
        shape: what it is made of.
        mean, std: of the data, one number a channel.
        seed: of the weights, which are uniform as PyTorch's own; the last layer starts at zero.

    Example:
        >>> denoiser = PatternDenoiser(PatternShape(), mean=[0.0, 0.0], std=[1.0, 0.5])
        >>> denoiser(torch.ones(1, 2, 16, 16)).mean((2, 3)).detach()  # untrained: the best of one number a channel
        tensor([[0.9448, 0.8105]])
    """

    def __init__(self, shape: PatternShape, mean: Any, std: Any, *, seed: int = 0):
        super().__init__()
        self.shape = shape
        for name, values in (("mean", mean), ("std", std)):
            numbers = torch.as_tensor(values, dtype=torch.float32).flatten()
            if len(numbers) != shape.channels or not numbers.isfinite().all():
                raise ValueError(f"expected {name} of {shape.channels} finite numbers, one a channel, got {values}")
            self.register_buffer(name, numbers.view(-1, 1, 1).clone())
        if not (self.std > 0).all():
            raise ValueError(f"expected std above 0, got {std}: a constant channel has nothing to learn")
        timed = shape.alpha is None
        with torch.random.fork_rng(devices=[]):
            self.network: nn.Module
            if shape.network == "local":
                inputs, make = shape.channels + timed, {"width": shape.width, "dilations": shape.dilations}
                self.network = Local(inputs, shape.channels, first=shape.first, **make)
            else:
                self.network = UNet(shape.channels, shape.channels)
        self._draw(seed)

    @torch.no_grad()
    def _draw(self, seed: int) -> None:
        """Weights from the counter-based generator: the same everywhere, and none taken from the caller's."""
        layers = [layer for layer in self.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
        for index, layer in enumerate(layers):
            scale = layer.weight[0].numel() ** -0.5
            for part, parameter in enumerate((layer.weight, layer.bias)):
                if parameter is None:
                    continue
                sample = torch.tensor([2 * index + part])
                words = philox.words(sample, parameter.numel(), seed=seed, stream=_WEIGHTS)
                uniform = 2 * philox.unit_interval(words) - 1
                parameter.copy_(scale * uniform.view_as(parameter))
        last = self.network.leave if self.shape.network == "local" else self.network.model.conv_out
        for parameter in last.parameters():
            parameter.zero_()

    @property
    def sigma(self) -> float | None:
        """Standard deviation of the noise at the one level it knows, in the units of the data."""
        return None if self.shape.alpha is None else math.sqrt((1 - self.shape.alpha) / self.shape.alpha)

    def _level(self, sigma: float | Tensor) -> Tensor:
        """[batch] or [1], filled in where the weights are: a CUDA graph refuses numbers from the host."""
        if isinstance(sigma, Tensor):
            return sigma.to(self.std).flatten()
        return torch.full((1,), sigma, dtype=self.std.dtype, device=self.std.device)

    def constants(self, sigma: float | Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """mean, c_skip, c_out and c_in, each of a shape that fields multiply."""
        sigma = self._level(sigma).view(-1, 1, 1, 1)
        plain = self.shape.precondition != "edm"
        mean, std = (torch.zeros_like(self.mean), torch.ones_like(self.std)) if plain else (self.mean, self.std)
        total = std.square() + sigma.square()
        if self.shape.precondition == "x0":
            return mean, torch.zeros_like(total), torch.ones_like(total), total.rsqrt()
        return mean, std.square() / total, sigma * std * total.rsqrt(), total.rsqrt()

    def network_output(self, noised: Tensor, sigma: float | Tensor) -> Tensor:
        """f(c_in z), in float32."""
        mean, _, _, scale = self.constants(sigma)
        scaled = scale * (noised - mean)
        time = self._level(sigma).log() / 4
        if self.shape.network == "unet":
            return self.network(scaled, 1000 * time.expand(len(noised))).to(noised.dtype)
        if self.shape.alpha is None:
            scaled = torch.cat([scaled, time.view(-1, 1, 1, 1).to(scaled).expand(len(noised), 1, *noised.shape[2:])], 1)
        return self.network(scaled).to(noised.dtype)

    def _plain(self, noised: Tensor, sigma: float | Tensor) -> Tensor:
        mean, skip, out, _ = self.constants(sigma)
        return mean + skip * (noised - mean) + out * self.network_output(noised, sigma)

    def forward(
        self,
        noised: Tensor,  # [batch, channels, height, width], y = x_0 + sigma epsilon
        sigma: float | Tensor | None = None,  # [batch] or a number; None: the one level that it knows
    ) -> Tensor:
        """The expected clean field, [batch, channels, height, width].

        Raises:
            ValueError: the field has other channels, or no sigma is given where every level is known.
        """
        if noised.ndim != 4 or noised.shape[1] != self.shape.channels:
            raise ValueError(
                f"expected fields [batch, {self.shape.channels}, height, width] as this denoiser was made for, got "
                f"{list(noised.shape)}"
            )
        if sigma is None:
            sigma = self.sigma
        if sigma is None:
            raise ValueError("expected sigma, since this denoiser knows every noise level: give the one of the fields")
        if not self.shape.conservative:
            return self._plain(noised, sigma)
        training = torch.is_grad_enabled() and any(part.requires_grad for part in (noised, *self.parameters()))
        with torch.inference_mode(False), torch.enable_grad():
            noised = noised.clone() if noised.is_inference() else noised
            noised = noised if noised.requires_grad else noised.detach().requires_grad_()
            half = 0.5 * (noised - self._plain(noised, sigma)).square().sum()
            (slope,) = torch.autograd.grad(half, noised, create_graph=training)
            clean = noised - slope
        return clean if training else clean.detach()

    def at(self, alpha: float | None = None, *, clip: bool = False) -> PatternScore:
        """The score of the data under noise of the squared signal coefficient alpha.

        Args:
            alpha: in (0, 1); None: the one level that the network knows.
            clip: clamp the clean field to [-1, 1] as the released code does: then the score is no gradient any more.

        Raises:
            ValueError: the network was not made for this alpha.
        """
        return PatternScore(self, self.shape.alpha if alpha is None else alpha, clip=clip)


@dataclass(frozen=True, eq=False)
class PatternScore:
    """The score of a pattern denoiser at one noise level; a `Score` of fields x = sqrt(alpha) x_0 + sqrt(1 - alpha) n.

    Args:
        denoiser: the network.
        alpha: squared coefficient of the signal, in (0, 1).
        clip: whether the clean field is clamped to [-1, 1].
    """

    denoiser: PatternDenoiser
    alpha: float
    clip: bool = field(default=False, kw_only=True)

    predicts = "x0"

    def __post_init__(self) -> None:
        known = self.denoiser.shape.alpha
        if self.alpha is None:
            raise ValueError("expected alpha, since this denoiser knows every noise level: give the one to roll out at")
        folding(self.predicts, self.alpha)
        if known is not None and not math.isclose(self.alpha, known, rel_tol=1e-6):
            raise ValueError(
                f"expected alpha={known:g}, the one level that this denoiser was made for, got {self.alpha:g}: "
                "train another, or one for all levels"
            )

    @property
    def sigma(self) -> float:
        """Standard deviation of the noise beside a clean field of the size of the data."""
        return math.sqrt((1 - self.alpha) / self.alpha)

    @property
    def lipschitz(self) -> float:
        """No eigenvalue of the exact score's Jacobian lies below minus this; explicit steps are judged by it."""
        return 1 / (1 - self.alpha)

    @property
    def state_scale(self) -> float:
        return folding(self.predicts, self.alpha).state_scale

    @property
    def output_scale(self) -> float:
        return folding(self.predicts, self.alpha).output_scale

    def to(self, *to: Any, **named: Any) -> PatternScore:
        """The same score in another precision or layout or on another device; takes what Module.to takes."""
        return dataclasses.replace(self, denoiser=copy.deepcopy(self.denoiser).to(*to, **named))

    def noised(self, clean: Tensor, *, seed: int, first_sample: int = 0, step: int = 0) -> Tensor:
        """sqrt(alpha) clean + sqrt(1 - alpha) epsilon, of the stream "data-noise": [batch, channels, height, width]."""
        noise = ops.normal(
            len(clean), clean[0].numel(), seed=seed, step=step, first_sample=first_sample,
            stream=philox.STREAMS["data-noise"], device=clean.device,
        )  # fmt: skip
        return math.sqrt(self.alpha) * clean + math.sqrt(1 - self.alpha) * noise.view_as(clean)

    def output(self, state: Tensor) -> Tensor:
        """The expected clean field D, [batch, channels, height, width]."""
        clean = self.denoiser(state / math.sqrt(self.alpha), self.sigma)
        return clean.clamp(-1, 1) if self.clip else clean

    def __call__(self, state: Tensor) -> Tensor:
        return self.state_scale * state + self.output_scale * self.output(state)
