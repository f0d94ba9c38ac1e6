"""Which terms: the sets of all sizes that conditions allow, compared with the weights of each.

Backward elimination trusts the standard errors of the whole library. Where the terms nearly depend on each other over
the data, as monomials do around a limit cycle, those errors are wrong: the estimated matrix times a combination without
an effect is noise, which fits the noise of the right equation, and false terms of many standard errors come out (weak
identification; Stock, Wright and Yogo, J. Bus. Econ. Stat. 20, 518 (2002)). J with the weights of the coefficients at
hand knows better, as its weights say how noisy a combination is. So sets are proposed by a search with common weights,
and judged by their own J.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from eqflow.fokker_planck.estimate import Conditions, Fit, Subset, Weighted, estimate, first_step
from eqflow.fokker_planck.solve import CUT, check_rank

_EACH_SIZE = 3  # sets that are judged by their own weights
_SEARCHES = 4  # with the weights of the last set, until it stays


class Selection(NamedTuple):
    """The sparsest sets of terms."""

    fit: Fit  # of the best
    rivals: tuple[Fit, ...]  # nearly as good with other terms, best first
    count: float  # of the contributions

    def __str__(self) -> str:
        lines = []
        if self.count < 2 * self.fit.kept_rank:
            lines.append(
                f"{self.count:.0f} {self.fit.layout.data} for {self.fit.kept_rank} conditions are few, and hardly "
                f"contradict any terms: take {2 * self.fit.kept_rank} or more"
            )
        for rival in self.rivals:
            without = ", ".join(name for name in self.fit.names if name not in rival.names)
            extra = ", ".join(name for name in rival.names if name not in self.fit.names)
            change = " and ".join(filter(None, (without and f"without {without}", extra and f"with {extra}")))
            lines.append(
                f"nearly as good {change}: J = {rival.j_statistic:.4g} for {self.fit.j_statistic:.4g}; more "
                f"{self.fit.layout.data} would tell"
            )
        return "\n".join(lines)


def score(fit: Fit, count: float, threshold: float) -> float:
    """How far the data are from a set of terms, and threshold^2 for each: the least is the best.

    The distance is the likelihood ratio of a mean of zero, (N - 1 - r / 2) log(1 + J / N) for r conditions and N
    contributions, in which J with many contributions is left (Bartlett 1938), less its mean r. With a penalty it is a
    criterion of Andrews, Econometrica 67, 543 (1999). Few contributions hardly contradict anything by it, so above
    twice its mean J counts in proportion.
    """
    rank, j = fit.kept_rank, fit.j_statistic
    if count == math.inf:
        return j - rank + threshold**2 * len(fit.names)
    freedom = rank - len(fit.names)
    usual = 2 * freedom / max(count - freedom - 2, 0.5)
    ratio = j / count
    size = math.log1p(min(ratio, usual)) + max(ratio - usual, 0.0) / (1 + usual)
    return max(count - 1 - rank / 2, 0.0) * size - rank + threshold**2 * len(fit.names)


def sparsest(
    conditions: Conditions,
    coefficients: Tensor | None = None,  # [unknowns]
    *,
    threshold: float = 4.0,
    cut: float = CUT,
    rounds: int = 2,
    width: int = 300,
) -> Selection:
    """The terms without which the data cannot be explained.

    From all terms down, the sets of each size with the least J are kept, with common weights; the best few of each are
    estimated with weights of their own, and the one of the least `score` is taken. Its weights make the next search,
    until the set stays.

    Args:
        conditions: with a library of candidate terms.
        coefficients: of which the weights of the first search are made; None: by weighted least squares.
        threshold: a term has to lower J by its square.
        cut, rounds: as in `estimate`.
        width: sets of each size that the search keeps.

    Raises:
        ValueError: as `estimate`; an argument is wrong; or not even one term can be estimated.
    """
    if not threshold > 0 or width < 1:
        raise ValueError(f"expected a positive threshold and a width from 1 up, got {threshold} and {width}")
    count = conditions.means.count
    judged: dict[tuple[int, ...], Fit] = {}
    best: tuple[int, ...] | None = None
    coefficients = first_step(conditions) if coefficients is None else coefficients
    for _ in range(_SEARCHES):
        weighted, last = Weighted.of((conditions,), coefficients, cut), best
        check_rank(*weighted.matrix.shape)
        problem = _judge(_proposed(weighted, width), conditions, judged, threshold, cut, rounds)
        if not judged:
            raise problem or ValueError("expected at least one term to choose from, got none")
        best = min(judged, key=lambda kept: score(judged[kept], count, threshold))
        if best == last:
            break
        found = judged[best].coefficients
        coefficients = found.new_zeros(len(conditions.names)).index_copy(0, torch.tensor(best), found)
    close = score(judged[best], count, threshold) + threshold**2
    others = sorted((score(fit, count, threshold), kept) for kept, fit in judged.items() if not set(best) <= set(kept))
    rivals = tuple(judged[kept] for points, kept in others if points < close)
    return Selection(judged[best], rivals, count)


def _judge(
    proposed: list[tuple[int, ...]],
    conditions: Conditions,
    judged: dict[tuple[int, ...], Fit],
    threshold: float,
    cut: float,
    rounds: int,
) -> ValueError | None:
    """Estimate the sets, small ones first, until size alone makes them worse than the best one; the last problem."""
    count, problem = conditions.means.count, None
    for kept in proposed:
        if kept in judged:
            continue
        if judged:
            best = min(judged.values(), key=lambda fit: score(fit, count, threshold))
            least = threshold**2 * len(kept) - len(conditions.means.target)
            if least > score(best, count, threshold):
                break
        try:
            judged[kept] = estimate(Subset(conditions, kept), cut=cut, rounds=rounds)
        except ValueError as error:  # too few independent conditions, or dependent terms: another set may do
            problem = error
    return problem


def _proposed(weighted: Weighted, width: int) -> list[tuple[int, ...]]:
    """The sets of each size with the least J by a search from all terms down, small ones first."""
    norms = weighted.matrix.norm(dim=0)
    columns = weighted.matrix / torch.where(norms > 0, norms, 1.0)
    square, root = torch.linalg.qr(columns)
    target = square.T @ weighted.target
    sets, found = torch.arange(columns.shape[1])[None], []
    while True:
        size = sets.shape[1]
        left, right = torch.linalg.qr(root[:, sets].movedim(1, 0))  # [sets, unknowns, size]
        inverse, _ = torch.linalg.inv_ex(right)
        shares = left.mT @ target
        values = (inverse @ shares[..., None])[..., 0]
        misfit = target.square().sum() - shares.square().sum(1)
        best = misfit.argsort()[:_EACH_SIZE]
        found += [tuple(kept) for kept in sets[best].tolist()][::-1]
        if size == 1:
            return found[::-1]
        without = misfit[:, None] + values.square() / inverse.square().sum(2)
        sets = _smaller(sets, without.nan_to_num(math.inf), width)


def _smaller(sets: Tensor, without: Tensor, width: int) -> Tensor:
    """The best sets with one term less, each once, [at most width, size - 1]."""
    size = sets.shape[1]
    found: dict[tuple[int, ...], None] = {}
    members = sets.tolist()
    for place in without.flatten().argsort().tolist():
        row, term = divmod(place, size)
        found[tuple(members[row][:term] + members[row][term + 1 :])] = None
        if len(found) == width:
            break
    return torch.tensor(list(found))
