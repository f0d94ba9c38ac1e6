"""The mathematics of Gaussian mixtures: distances whitened by the covariance, differentiable throughout."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

_CHUNK = 2**18  # numbers in the largest temporary
_ROWS = 2**10  # of the state, where there is no such temporary


class WhitenedMixture:
    """p(y) = sum of w_k N(y; m_k, C_k), C_k^-1 = W_k^T W_k: densities, scores and posterior weights of many components.

    Differentiable in the state and in everything it is made of. It takes on the precision and device of the state.

    Args:
        means: m_k, [components, dimension].
        whiten: W_k, [components, dimension, dimension]; or one for all, [dimension, dimension]; or one number [].
        log_weights: log w_k, [components].

    Example:
        >>> mixture = WhitenedMixture(torch.zeros(1, 2), torch.tensor(2.0), torch.zeros(1))
        >>> mixture.score(torch.tensor([[1.0, -2.0]]))
        tensor([[-4.,  8.]])
    """

    def __init__(self, means: Tensor, whiten: Tensor, log_weights: Tensor):
        dimension = means.shape[1]
        if whiten.ndim:
            log_scale = whiten.diagonal(dim1=-2, dim2=-1).abs().log().sum(-1)  # of triangular ones
            self.traces = whiten.square().sum((-2, -1))  # of the inverse covariances
        else:
            log_scale, self.traces = dimension * whiten.log(), dimension * whiten.square()
        self.whiten, self.log_factors = whiten, log_weights + log_scale - dimension / 2 * math.log(2 * math.pi)
        self.centres = torch.einsum("kij,kj->ki", whiten, means) if whiten.ndim == 3 else self._through(means)

    def _through(self, rows: Tensor) -> Tensor:
        """W x for the one W."""
        return rows @ self.whiten.to(rows).T if self.whiten.ndim else rows * self.whiten.to(rows)

    def _back(self, away: Tensor) -> Tensor:
        """-W^T z for z [rows, components, dimension]: the scores of the components."""
        whiten = self.whiten.to(away)
        if whiten.ndim == 3:
            return -torch.einsum("nki,kij->nkj", away, whiten)
        return -(away @ whiten) if whiten.ndim else -(away * whiten)

    def _pieces(self, state: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Chunks of rows: log of weight times density [rows, components], and the whitened distances."""
        centres, factors = self.centres.to(state), self.log_factors.to(state)
        for rows in state.split(max(1, _CHUNK // centres.numel())):
            if self.whiten.ndim == 3:
                seen = (rows @ self.whiten.to(state).flatten(0, 1).T).unflatten(1, centres.shape)
            else:
                seen = self._through(rows)[:, None]
            away = seen - centres
            yield factors - away.square().sum(2) / 2, away

    def log_density(self, state: Tensor) -> Tensor:
        """log p, [batch]."""
        return torch.cat([_summed(joint)[0] for joint, _ in self._pieces(state)])

    def posterior(self, state: Tensor) -> Tensor:
        """How likely each component is given the state, [batch, components]."""
        if self.whiten.ndim == 3:
            return torch.cat([joint.softmax(1) for joint, _ in self._pieces(state)])
        # With one W the square of the state is the same for all components, and a product of matrices is left.
        centres = self.centres.to(state)
        biases = self.log_factors.to(state) - centres.square().sum(1) / 2
        return torch.cat([(self._through(rows) @ centres.T + biases).softmax(1) for rows in state.split(_ROWS)])

    def score(self, state: Tensor) -> Tensor:
        """grad log p, [batch, dimension]."""
        parts = []
        for joint, away in self._pieces(state):
            weighted = joint.softmax(1)[..., None] * away
            if self.whiten.ndim == 3:  # one product: no temporary for each component
                parts.append(weighted.flatten(1) @ -self.whiten.to(state).flatten(0, 1))
            else:
                parts.append(self._back(weighted.sum(1)))
        return torch.cat(parts)

    def local(self, state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """log p [batch], grad log p [batch, dimension] and the Laplacian of log p [batch], in one pass.

        The Laplacian is the variance of the components' scores under the posterior, less the trace of 1 / C.
        """
        parts = []
        for joint, away in self._pieces(state):
            log_density, posterior, scores = *_summed(joint), self._back(away)
            score = torch.einsum("nk,nkd->nd", posterior, scores)
            spread = (posterior * (scores - score[:, None]).square().sum(2)).sum(1)
            parts.append((log_density, score, spread - (posterior * self.traces.to(state)).sum(1)))
        return tuple(torch.cat(part) for part in zip(*parts, strict=True))

    def divergence(self, state: Tensor) -> Tensor:
        """Laplacian of log p, [batch]."""
        return self.local(state)[2]


def _summed(joint: Tensor) -> tuple[Tensor, Tensor]:
    """log sum exp, [rows], and the softmax, [rows, components], which holds where the sum is beyond all digits.

    By plain operations: a backward pass over the forward derivative of PyTorch's own logsumexp fails.
    """
    largest = joint.detach().amax(1, keepdim=True)
    terms = (joint - largest).exp()
    total = terms.sum(1, keepdim=True)
    return (total.log() + largest)[:, 0], terms / total
