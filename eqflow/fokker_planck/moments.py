"""The weak form of the Fokker-Planck equation: moment conditions from points, without a density.

Steady:            E[L phi] + Cov(g, phi) = 0
Snapshots at t_k:  E_{k+2} phi - E_k phi = integral from t_k to t_{k+2} of E[L phi] + Cov(g, phi), by Simpson's rule;
                   with the counts M_k known, M_k E_k phi and M_k E_k[L phi + g phi] instead

for every smooth phi that is constant where the points could leave the picture.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import torch
from torch import Tensor

from eqflow.fokker_planck import stream
from eqflow.fokker_planck.estimate import Means
from eqflow.fokker_planck.functions import Functions
from eqflow.fokker_planck.layout import Layout
from eqflow.fokker_planck.model import Model

_CHUNK = 2**18  # numbers in a temporary: it stays in the cache, and in memory that is used again


class Source(NamedTuple):
    """Points that share test functions."""

    points: stream.Points
    functions: Functions


class Snapshot(NamedTuple):
    """Points of one time, in one or more sources."""

    sources: tuple[Source, ...]
    time: float = 0.0
    mass: float = 1.0  # how many there are in nature, where that is known


class _Sums(NamedTuple):
    """Means over the points of a snapshot, per test function where not said otherwise."""

    count: Tensor  # []
    values: Tensor  # [m]: phi
    squares: Tensor  # [m]: phi^2
    known: Tensor  # [m]: what is known of L phi + g phi
    known_squares: Tensor  # [m]
    matrix: Tensor  # [m, unknowns]: the rest, for each unknown
    growth: Tensor  # [growth unknowns]: of the terms of g
    known_growth: Tensor  # []: of the known part of g


@dataclasses.dataclass(frozen=True, eq=False)
class WeakForm:
    """The moment conditions of a model and some snapshots; satisfies `Conditions`. Make it with `weak_form`.

    Args:
        model: what is known and unknown.
        snapshots: the points.
        change: [equations, snapshots], coefficients of E phi.
        quadrature: [equations, snapshots], coefficients of E[L phi]: (quadrature L - change) E phi = 0.
        normalised: replace g phi by its covariance, as the number of points tells nothing.
        combine: adds tensors up over ranks.
        half: use only the points with an even (0) or odd (1) place; None: all.
    """

    model: Model
    snapshots: tuple[Snapshot, ...]
    change: Tensor
    quadrature: Tensor
    normalised: bool = True
    combine: stream.Combine | None = None
    half: int | None = None
    _memory: list[tuple[_Sums, ...]] = dataclasses.field(default_factory=list, init=False, repr=False)

    @property
    def names(self) -> tuple[str, ...]:
        return self.model.names

    @property
    def layout(self) -> Layout:
        return self.model.layout

    @property
    def functions(self) -> int:
        """How many test functions there are."""
        return self.snapshots[0].sources[0].functions.count

    def halves(self) -> tuple[WeakForm, WeakForm]:
        if self.half is not None:
            raise ValueError("expected the whole of the points, got a half of them")
        return dataclasses.replace(self, half=0), dataclasses.replace(self, half=1)

    def _chunks(self, source: Source):
        keep = None if self.half is None else lambda index: index % 2 == self.half
        return stream.chunks(source.points, max(64, _CHUNK // source.functions.count), keep=keep)

    @property
    def _sums(self) -> tuple[_Sums, ...]:
        # Not a cached_property: until Python 3.12 its lock would let ranks in threads wait for each other forever.
        if not self._memory:
            self._memory.append(tuple(self._snapshot_sums(snapshot) for snapshot in self.snapshots))
        return self._memory[0]

    def _snapshot_sums(self, snapshot: Snapshot) -> _Sums:
        parts = (
            self._chunk_sums(points, source.functions, snapshot.time)
            for source in snapshot.sources
            for points in self._chunks(source)
        )
        count, *sums = stream.add_up(parts, self.combine)
        return _Sums(count, *(value / count for value in sums))

    def _chunk_sums(self, points: Tensor, functions: Functions, time: float) -> tuple[Tensor, ...]:
        model, local = self.model, functions.at(points)
        values = local.values()
        none = torch.zeros(len(model.names), dtype=points.dtype, device=points.device)
        drift = None if model.known is None else model.known(points, time)
        diffusion = None if model.diffusion is None else model.diffusion(points)
        known = torch.zeros_like(values) if drift is diffusion is None else local.generator(drift, diffusion)
        known_growth = none.new_zeros(())
        if model.known_growth is not None:
            rate = model.known_growth(points, time)
            known, known_growth = known + rate[:, None] * values, rate.sum()
        columns, growth = [], none[:0]
        if model.features is not None:
            rows = model.placement.abs().sum((0, 2)).nonzero()[:, 0].tolist()
            sums = local.gradient_sums(model.features(points, time), rows)
            columns.append(torch.einsum("mcl,kcl->mk", sums, model.placement[:, rows].to(sums)))
        columns += [local.generator(None, part(points)).sum(0)[:, None] for part in model.unknown_diffusion]
        if model.growth is not None:
            terms = model.growth(points, time)
            columns.append(values.T @ terms)
            growth = terms.sum(0)
        return (
            none.new_tensor(float(len(points))),
            values.sum(0),
            values.square().sum(0),
            known.sum(0),
            known.square().sum(0),
            torch.cat(columns, 1),
            growth,
            known_growth,
        )

    def _rates(self, sums: _Sums) -> tuple[Tensor, Tensor]:
        """The known part [m] and the columns [m, unknowns] of d(E phi)/dt."""
        known, matrix = sums.known, sums.matrix
        if self.normalised:
            known = known - sums.known_growth * sums.values
            if len(sums.growth):
                first = len(self.names) - len(sums.growth)
                matrix = matrix - torch.nn.functional.pad(torch.outer(sums.values, sums.growth), (first, 0))
        return known, matrix

    @property
    def means(self) -> Means:
        rates = [self._rates(sums) for sums in self._sums]
        device = rates[0][0].device
        mass = torch.tensor([s.mass for s in self.snapshots], dtype=torch.float64)
        change, quadrature = (self.change * mass).to(device), (self.quadrature * mass).to(device)
        matrix = torch.einsum("ks,smp->kmp", quadrature, torch.stack([matrix for _, matrix in rates]))
        known = torch.einsum("ks,sm->km", quadrature, torch.stack([known for known, _ in rates]))
        values = torch.einsum("ks,sm->km", change, torch.stack([sums.values for sums in self._sums]))
        size = torch.einsum("ks,sm->km", quadrature**2, torch.stack([sums.known_squares for sums in self._sums]))
        size = size + torch.einsum("ks,sm->km", change**2, torch.stack([sums.squares for sums in self._sums]))
        return Means(matrix.flatten(0, 1).cpu(), (values - known).flatten().cpu(), size.sqrt().flatten().cpu())

    def _contributions(self, points: Tensor, source: Source, snapshot: Snapshot, sums: _Sums, theta, homogeneous):
        """What each point adds to E[L phi] + Cov(g, phi), and to E phi, about the mean of the latter: [n, m] each."""
        model, local = self.model, source.functions.at(points)
        drift = model.drift(points, theta, snapshot.time, homogeneous=homogeneous)
        rates = local.generator(drift, model.diffusion_at(points, theta, homogeneous=homogeneous))
        values = local.values()
        if self.normalised:
            values = values - sums.values
        if model.growth is not None:
            coefficients = theta[-len(sums.growth) :].to(points)
            growth = model.growth(points, snapshot.time)
            rates = rates + ((growth - sums.growth * self.normalised) @ coefficients)[:, None] * values
        if model.known_growth is not None and not homogeneous:
            rate = model.known_growth(points, snapshot.time) - sums.known_growth * self.normalised
            rates = rates + rate[:, None] * values
        return rates, values

    def _snapshot_covariance(self, snapshot: Snapshot, sums: _Sums, theta, homogeneous, with_values: bool) -> Tensor:
        """Covariance of the means of the rates, and of phi behind them if asked for: [m, m] or [2m, 2m]."""

        def parts():
            for source in snapshot.sources:
                for points in self._chunks(source):
                    both = self._contributions(points, source, snapshot, sums, theta, homogeneous)
                    stacked = torch.cat(both, 1) if with_values else both[0]
                    yield stacked.new_tensor(float(len(points))), stacked.sum(0), stacked.T @ stacked

        count, total, square = stream.add_up(parts(), self.combine)
        mean = total / count
        return snapshot.mass**2 * (square / count - torch.outer(mean, mean)) / count

    def covariance(self, coefficients: Tensor, *, homogeneous: bool = False) -> Tensor:
        m, equations = self.functions, len(self.change)
        total: Tensor | float = 0.0
        for s, (snapshot, sums) in enumerate(zip(self.snapshots, self._sums, strict=True)):
            weights = self.quadrature[:, s, None]
            with_values = bool(self.change[:, s].any()) and not homogeneous
            if with_values:
                weights = torch.cat([weights, -self.change[:, s, None]], 1)
            part = self._snapshot_covariance(snapshot, sums, coefficients, homogeneous, with_values)
            blocks = part.view(weights.shape[1], m, weights.shape[1], m)
            weights = weights.to(part)
            total = total + torch.einsum("ka,ambn,lb->kmln", weights, blocks, weights)
        return total.reshape(equations * m, equations * m).cpu()
