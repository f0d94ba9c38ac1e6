"""What all pattern-forming systems share: random starts, the time step, and still pictures."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import KW_ONLY, dataclass
from typing import ClassVar

import torch
from torch import Tensor

from eqflow import ops
from eqflow.ops import philox
from eqflow.ops.gray_scott import STENCILS
from eqflow.systems.integrators import runge_kutta
from eqflow.systems.patterns.terms import OPERATORS, Equations, Term, evaluate

_CHUNK_CELLS = 2**16  # cells advanced at a time, so that the work stays in the cache
FASTEST_DECAY = 2.785  # times 1 / dt: what the classical Runge-Kutta step still damps


@dataclass(frozen=True)
class Pattern(ABC):
    """dx = f(x) dt + sqrt(2 D) dW on a periodic grid, with f a sum of the terms of `equations`.

    In space f is exactly what `equations` says, each Laplacian being the stencil over dx^2, and W is independent from
    cell to cell. In time a step is the classical one of Runge and Kutta, so that the pictures are those of the equation
    in continuous time up to order dt^4. A picture is a function of (seed, sample index) alone.

    Args:
        diffusion: D of every channel, for each cell and unit of time; 0: no noise.
        dx: grid spacing.
        stencil: "5-point" or "9-point", see `eqflow.ops.gray_scott`.

    Raises:
        ValueError: an argument is wrong.
    """

    _: KW_ONLY
    diffusion: float = 0.0
    dx: float = 1.0
    stencil: str = "5-point"

    channels: ClassVar[tuple[str, ...]] = ("u", "v")
    source: ClassVar[str]
    character: ClassVar[str]  # of the defaults: "moving", "static" or "coarsening"
    settling: ClassVar[float]  # the youngest age of a picture of the defaults, in units of time
    longest_step: ClassVar[float] = math.inf  # dt with which the reaction is exact to four digits
    conserved: ClassVar[bool] = False  # whether the noise is a divergence, of covariance -2 D Lap instead of 2 D
    patch: ClassVar[int] = 1  # side of the squares of equal deviation in a start, in cells
    spread: ClassVar[float] = 0.1  # standard deviation of a start

    def __post_init__(self) -> None:
        if self.stencil not in STENCILS:
            raise ValueError(f"expected stencil {' or '.join(map(repr, STENCILS))}, got {self.stencil!r}")
        if not 0 < self.dx < math.inf or not 0 <= self.diffusion < math.inf:
            raise ValueError(f"expected dx above 0 and diffusion from 0 up, got {self.dx} and {self.diffusion}")

    @abstractmethod
    def equations(self) -> Equations:
        """The true terms of f: for each channel a mapping from `Term` to coefficient."""

    @abstractmethod
    def fixed_point(self) -> tuple[float, ...]:
        """The homogeneous steady state around which starts are drawn, a number a channel."""

    def stability_limit(self) -> float:
        """The dt below which every Fourier mode that the linear terms damp decays."""
        largest, rates = STENCILS[self.stencil].stiffness / self.dx**2, [0.0]
        for place, row in enumerate(self.equations()):
            alone = tuple(int(channel == place) for channel in range(len(self.channels)))
            linear = [row.get(Term(operator, alone), 0.0) for operator in OPERATORS]
            rates.append(sum(coefficient * (-largest) ** order for order, coefficient in enumerate(linear)))
        return FASTEST_DECAY / -min(rates) if min(rates) < 0 else math.inf

    @property
    def dt(self) -> float:
        """The time step where none is given: half the limit of stability, or less where the reaction is fast."""
        return min(self.longest_step, self.stability_limit() / 2)

    def rates(
        self,
        state: Tensor,  # [batch, channels, height, width]
    ) -> Tensor:
        """f(x), of the shape of the state, in its precision."""
        return evaluate(self.equations(), state, dx=self.dx, stencil=self.stencil)

    def noise(
        self,
        state: Tensor,  # [batch, channels, height, width]
        **counter: int,
    ) -> Tensor:
        """The increment of W in a unit of time, of the shape of the state."""
        batch, *sizes = state.shape
        stream = philox.STREAMS["langevin"]
        normals = ops.normal(batch, math.prod(sizes), stream=stream, device=state.device, **counter)
        return normals.view(state.shape).to(state.dtype)

    def start(
        self,
        batch: int,
        height: int,
        width: int,
        *,
        seed: int,
        first_sample: int = 0,
        device: str | torch.device = "cpu",
    ) -> Tensor:
        """Starting states: the fixed point with a normal deviation in each patch of cells.

        Arguments and result as those of `simulate`.
        """
        rows, columns = -(-height // self.patch), -(-width // self.patch)
        sites, stream = len(self.channels) * rows * columns, philox.STREAMS["initial"]
        normals = ops.normal(batch, sites, seed=seed, stream=stream, first_sample=first_sample, device=device)
        patches = normals.view(batch, len(self.channels), rows, columns)
        cells = patches.repeat_interleave(self.patch, 2)[:, :, :height].repeat_interleave(self.patch, 3)[..., :width]
        return cells.new_tensor(self.fixed_point())[:, None, None] + self.spread * cells

    def run(
        self,
        state: Tensor,  # [batch, channels, height, width]
        steps: int,
        *,
        dt: float | Tensor | None = None,
        seed: int | None = None,
        first_sample: int = 0,
        first_step: int = 0,
    ) -> Tensor:
        """Advance states by some steps, in their precision.

        Args:
            state: where they start.
            steps: number of steps.
            dt: time step, or one for each sample, [batch]; None: `self.dt`.
            seed, first_sample, first_step: counter of the noise; the seed is needed where there is noise.

        Raises:
            ValueError: an argument is wrong, or dt is above the limit of stability.
            FloatingPointError: a state has grown beyond all bounds.
        """
        dt = self._check(state, steps, self.dt if dt is None else dt, seed)
        samples = max(1, _CHUNK_CELLS // math.prod(state.shape[2:]))
        parts = zip(state.split(samples), dt.split(samples), strict=True)
        return torch.cat(
            [
                self._advance(part, steps, size, seed, first_sample + samples * number, first_step)
                for number, (part, size) in enumerate(parts)
            ]
        )

    def simulate(
        self,
        batch: int,
        height: int,
        width: int,
        *,
        seed: int,
        steps: int | None = None,
        dt: float | None = None,
        first_sample: int = 0,
        device: str | torch.device = "cpu",
    ) -> Tensor:
        """Still pictures: states some time after a random start.

        Without `steps` each picture has an age of its own, uniform in 1 to 2 times `settling`, so that pictures of a
        pattern that turns or beats do not keep in step: one set of them is stationary.

        Args:
            batch: number of pictures.
            height, width: size of the grid.
            seed: in [0, 2^64).
            steps: number of time steps of dt, the same for all; None: see above.
            dt: time step, the longest one where ages differ; None: `self.dt`.
            first_sample: index of the first picture.
            device: where they are made.

        Returns:
            float32 tensor [batch, channels, height, width].

        Raises:
            ValueError: an argument is wrong, or dt is above the limit of stability.
            FloatingPointError: a state has grown beyond all bounds.
        """
        dt = self.dt if dt is None else dt
        state = self.start(batch, height, width, seed=seed, first_sample=first_sample, device=device)
        if steps is None:
            samples = torch.arange(first_sample, first_sample + batch, device=device)
            words = philox.words(samples, 1, seed=seed, step=1, stream=philox.STREAMS["initial"])[:, 0]
            steps = math.ceil(2 * self.settling / dt)
            dt = self.settling * (1 + philox.unit_interval(words)) / steps
        return self.run(state, steps, dt=dt, seed=seed, first_sample=first_sample)

    def _check(self, state: Tensor, steps: int, dt: float | Tensor, seed: int | None) -> Tensor:
        """The time step of each sample, [batch]."""
        if state.ndim != 4 or state.shape[1] != len(self.channels) or min(state.shape[2:]) < 3:
            raise ValueError(
                f"expected a state [batch, {len(self.channels)}, height, width] of 3 x 3 cells or more, got "
                f"{list(state.shape)}"
            )
        sizes = torch.as_tensor(dt, dtype=torch.float64, device=state.device).expand(len(state))
        if steps < 0 or not ((sizes > 0) & sizes.isfinite()).all():
            raise ValueError(f"expected steps from 0 up and dt above 0, got {steps} and {dt}")
        if self.diffusion and seed is None:
            raise ValueError("expected a seed, since this system has noise: pass seed=...")
        if (sizes >= (limit := self.stability_limit())).any():
            raise ValueError(
                f"dt = {float(sizes.max())} is unstable: the limit is {limit:.4g} for dx = {self.dx} and the "
                f"{self.stencil} stencil. Take a smaller dt, or a larger dx"
            )
        return sizes

    def _advance(
        self, state: Tensor, steps: int, dt: Tensor, seed: int | None, first_sample: int, first_step: int
    ) -> Tensor:
        dt = dt.to(state.dtype)[:, None, None, None]
        scale = (2 * self.diffusion * dt).sqrt()
        for step in range(first_step, first_step + steps):
            if self.diffusion:
                kick = scale * self.noise(state, seed=seed, step=step, first_sample=first_sample)
                state = _noisy_step(self.rates, state, dt, kick)
            else:
                state = runge_kutta(self.rates, state, dt)
        if not state.isfinite().all():
            raise FloatingPointError(
                f"a state of {type(self).__name__} grew beyond all bounds before step {first_step + steps}: take a "
                "smaller dt, or start nearer to the fixed point"
            )
        return state


def _noisy_step(rates, state: Tensor, dt: Tensor, kick: Tensor) -> Tensor:
    """A Runge-Kutta step with a quarter of the noise before it, half spread over it and a quarter after it.

    In these shares the stationary variance of every linear mode is right to order dt^4; all of the noise in one place
    leaves an error of order dt, or dt^2 where it is spread evenly.
    """
    quarter, rate = kick / 4, kick / (2 * dt)
    return runge_kutta(lambda state: rates(state) + rate, state + quarter, dt) + quarter
