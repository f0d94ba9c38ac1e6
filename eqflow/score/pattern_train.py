"""Training of a denoiser for patterns: from a noised field y = x_0 + sigma epsilon back to the clean one.

    loss = mean of ((D(y) - x_0) / c_out)^2,    c_out as in Karras et al. 2022: the network's own error of unit scale

Every draw is a function of (seed, number of the field): training goes on after a stop to the bits of the undisturbed
one, and several processes of torch.distributed share the rows of a batch and step together.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.distributed as processes
from torch import Tensor, nn

from eqflow import ops
from eqflow.ops import philox
from eqflow.score.pattern import PatternDenoiser
from eqflow.score.pattern_data import Fields
from eqflow.score.pattern_options import SYMMETRIES, PatternTraining
from eqflow.score.pattern_shape import PatternShape
from eqflow.score.run import Run, State, cosine, identity

_ROWS, _NOISE = philox.STREAMS["minibatch"], philox.STREAMS["data-noise"]
_DRAWS, _LEVELS, _HELD_OUT, _HELD_OUT_LEVELS = range(2**33, 2**33 + 4)  # steps of the noise stream
_SYMMETRY = 2**32  # steps of the row stream from here on
_REFERENCE = 128  # fields for mean and standard deviation
_BETAS, _FLOOR = (0.9, 0.99), 0.01  # of AdamW; of the rate at the end


class PatternFit(NamedTuple):
    """What `train_pattern` gives."""

    denoiser: PatternDenoiser  # with the averaged parameters
    history: Tensor  # [looks, 3]: step, mean training loss since the look before, squared error on what is kept apart
    state: State  # the checkpoint at the end


def transformed(
    fields: Tensor,  # [batch, channels, height, width]
    symmetry: int,  # 0 .. 7: bit 0 flips rows, bit 1 columns, bit 2 exchanges the two
) -> Tensor:
    """The fields seen through one of the eight symmetries of the square."""
    axes = [axis for bit, axis in ((1, 2), (2, 3)) if symmetry & bit]
    flipped = fields.flip(axes) if axes else fields
    return flipped.transpose(2, 3) if symmetry & 4 else flipped


class _Run(Run):
    """The training of a denoiser for patterns; `kept` has the averaged parameters."""

    def __init__(self, fields: Fields, shape: PatternShape, training: PatternTraining):
        self.fields, self.training = fields, training
        self.device = fields.apart.device
        deviation, mean = torch.std_mean(fields.reference(_REFERENCE), (0, 2, 3))
        self.denoiser = PatternDenoiser(shape, mean, deviation, seed=training.seed).to(self.device)
        fast = "bfloat16" if self.device.type == "cuda" and not shape.conservative else "float32"
        self.half = (training.precision or fast) == "bfloat16"
        # With dilation, channels-last bfloat16 gives gradients that are no numbers, in torch 2.13 on CPUs.
        local = shape.network == "local" and not (self.half and max(shape.dilations) > 1)
        self.layout = torch.channels_last if local else torch.contiguous_format
        self.denoiser.to(memory_format=self.layout)
        self.kept = copy.deepcopy(self.denoiser)
        if training.compile:
            self.denoiser.network.compile()
        self.shifts = shape.network != "local" if training.shifts is None else training.shifts
        weights, rate = self.denoiser.parameters(), training.rate
        adam = torch.optim.AdamW(weights, lr=rate, betas=_BETAS, weight_decay=training.weight_decay, fused=True)
        networks = {"denoiser": self.denoiser, "kept": self.kept}
        super().__init__(networks, adam, identity(fields.identity(), shape, training))

    def _noised(self, clean: Tensor, first: int, step: int, levels: int) -> tuple[Tensor, Tensor]:
        """y and sigma of fields by the number of the first."""
        counter = {"seed": self.training.seed, "stream": _NOISE, "first_sample": first, "device": self.device}
        epsilon = ops.normal(len(clean), clean[0].numel(), step=step, **counter).view_as(clean)
        if self.denoiser.sigma is not None:
            sigma = torch.full((len(clean),), self.denoiser.sigma, device=self.device)
        else:
            mean, deviation = self.training.levels
            sigma = (mean + deviation * ops.normal(len(clean), 1, step=levels, **counter)[:, 0]).exp()
        return (clean + sigma.view(-1, 1, 1, 1) * epsilon).contiguous(memory_format=self.layout), sigma

    def _clean(self, model: PatternDenoiser, noised: Tensor, sigma: Tensor) -> Tensor:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
            return model(noised, sigma)

    def _drawn(self, rows: range) -> tuple[Tensor, Tensor]:
        """What the denoiser should give, and what it is given with noise: the same, unless the data say otherwise."""
        if not hasattr(self.fields, "pairs"):
            clean = self._seen(self.fields.draw(rows))
            return clean, clean
        clean, given = self.fields.pairs(rows)
        return self._seen(clean), self._seen(given)

    def _seen(self, clean: Tensor) -> Tensor:
        """The fields through the symmetry and the shift of this step."""
        samples, training = torch.zeros(1, dtype=torch.int64), self.training
        words = philox.words(samples, 3, seed=training.seed, step=_SYMMETRY + self.step, stream=_ROWS)[0]
        clean = transformed(clean, int(philox.integers(words[0], SYMMETRIES[training.symmetries])))
        if self.shifts:
            rows, columns = (int(philox.integers(words[1 + axis], clean.shape[2 + axis])) for axis in (0, 1))
            clean = clean.roll((rows, columns), (2, 3))
        return clean

    def _rate(self) -> float:
        training = self.training
        if self.step < training.warm_up:
            return training.rate * (self.step + 1) / training.warm_up
        done = (self.step - training.warm_up) / max(1, training.steps - training.warm_up)
        return training.rate * (_FLOOR + (1 - _FLOOR) * cosine(done))

    def advance(self) -> Tensor:
        training, (rank, ranks) = self.training, _place()
        first = self.step * training.batch
        rows = range(first + rank * training.batch // ranks, first + (rank + 1) * training.batch // ranks)
        clean, given = self._drawn(rows)
        noised, sigma = self._noised(given, rows.start, _DRAWS, _LEVELS)
        out = self.denoiser.constants(sigma)[2]
        error = (self._clean(self.denoiser, noised, sigma) - clean) / out
        loss = error.square().sum() / (training.batch * clean[0].numel())
        self.optimiser.param_groups[0]["lr"] = self._rate()
        self.optimiser.zero_grad()
        loss.backward()
        loss = loss.detach()
        if ranks > 1:
            self._share(loss)
        self._clip(loss)
        self.optimiser.step()
        decay = min(training.average, (1 + self.step) / (20 + self.step))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.kept.parameters()), list(self.denoiser.parameters()), 1 - decay)
        self.step += 1
        return loss

    def _share(self, loss: Tensor) -> None:
        """Sum loss and gradients over the processes, in one message."""
        gradients = [weight.grad for weight in self.denoiser.parameters()]
        flat = torch.cat([loss.view(1), *(gradient.flatten() for gradient in gradients)])
        processes.all_reduce(flat)
        parts = flat.split([1, *(gradient.numel() for gradient in gradients)])
        for own, part in zip((loss.view(1), *gradients), parts, strict=True):
            own.copy_(part.view_as(own))

    def _clip(self, loss: Tensor) -> None:
        norm = nn.utils.clip_grad_norm_(self.denoiser.parameters(), self.training.clip)
        if self.device.type == "cuda" and self.step % 50:
            return  # reading a number waits for the device
        if not (norm.isfinite() and loss.isfinite()):
            named = self.denoiser.named_parameters()
            bad = [name for name, weight in named if weight.grad is not None and not weight.grad.isfinite().all()]
            where = f"the gradient of {', '.join(bad[:3])}" if bad else f"the loss, {float(loss)},"
            raise FloatingPointError(
                f"{where} is not finite at step {self.step}: take a smaller rate, or precision='float32'"
            )

    @torch.no_grad()
    def look(self) -> float:
        """The squared error on the fields kept apart, with noise that stays the same: the mean over channels."""
        return float(self.errors().mean())

    @torch.no_grad()
    def errors(self, batch: int = 8) -> Tensor:
        """The same channel by channel, float64 [channels]."""
        found = []
        for first in range(0, len(self.fields.apart), batch):
            clean = self.fields.apart[first : first + batch]
            noised, sigma = self._noised(clean, first, _HELD_OUT, _HELD_OUT_LEVELS)
            found.append((self._clean(self.kept, noised, sigma) - clean).double().square().mean((2, 3)))
        return torch.cat(found).mean(0)


def _place() -> tuple[int, int]:
    """This process and how many there are."""
    if processes.is_available() and processes.is_initialized():
        return processes.get_rank(), processes.get_world_size()
    return 0, 1


def train_pattern(
    fields: Fields,
    shape: PatternShape,
    training: PatternTraining | None = None,
    *,
    state: State | None = None,
    save: Callable[[State], None] | None = None,
    progress: Callable[[int, float, float], None] | None = None,
    watch: Callable[[int], bool] | None = None,
) -> PatternFit:
    """Trains a denoiser on fields.

    Under torch.distributed every process calls this with the same arguments and gets the same denoiser.

    Args:
        fields: `Stored` or `Simulated`.
        shape: of the network.
        training: options; None: the defaults.
        state: a checkpoint to go on from: the result has the bits of the undisturbed training.
        save: called with a checkpoint, a plain dict of tensors, at each look and whenever `watch` says True.
        progress: called with (step, training loss, squared error on the fields kept apart) at each look.
        watch: called with the number of every step.

    Returns:
        PatternFit(denoiser, history, state).

    Raises:
        ValueError: the fields do not suit the shape or the options, or the checkpoint belongs to another training.
        FloatingPointError: loss or gradient are no numbers; the message names the layer.

    Example:
        >>> from eqflow.score import Stored
        >>> fields = Stored(torch.randn(12, 2, 16, 16), held_out=4, seed=0)
        >>> fit = train_pattern(fields, PatternShape(width=8), PatternTraining(steps=20, every=10))
        >>> fit.history[:, 0].tolist(), fit.denoiser.at()(fields.apart).shape
        ([10.0, 20.0], torch.Size([4, 2, 16, 16]))
    """
    training = training or PatternTraining()
    _, channels, height, width = fields.apart.shape
    if channels != shape.channels:
        raise ValueError(f"expected fields of {shape.channels} channels as in the shape, got {channels}")
    if training.symmetries == "square" and height != width:
        raise ValueError(f"expected square fields with symmetries 'square', got {height} x {width}: take 'flips'")
    ranks = _place()[1]
    if training.batch < ranks:
        raise ValueError(f"expected a batch from {ranks}, one field a process, got {training.batch}")
    run = _Run(fields, shape, training)
    if state is not None:
        run.load(state)
    run.follow(training.steps, training.every, save, progress, watch=watch)
    return PatternFit(run.kept.requires_grad_(False), run.table(), run.state())
