"""Networks that are equivariant under a flip of signs, v(Px) = P v(x), by tied weights: exact, and fast as plain ones.

Hidden unit i has a partner, i + width / 2, and a flip of the input swaps the two. The flip is then a signed permutation
of the parameters, theta_j -> sign_j theta_partner(j); the network is equivariant where that changes nothing, and stays
so in training if the gradient is symmetrised likewise. It is the gradient of the symmetrised loss: that of the points
and their images together.
"""

from __future__ import annotations

import torch
from torch import Tensor

from eqflow.dynamics.sectors import check_signs, sign_of
from eqflow.ops import MLP


def mirror(
    network: MLP,
    signs: Tensor,  # [dimension]: P = diag(signs)
    parity: str = "even",
) -> Tensor:
    """The signed permutation of the parameters that equals the flip: +-(partner + 1), int32 [size].

    Args:
        network: its hidden widths must be even.
        signs: +1 or -1 for each coordinate, not all +1.
        parity: "even": v(Px) = P v(x). "odd": v(Px) = -P v(x).

    Raises:
        ValueError: an argument is out of range.

    Example:
        >>> mirror(MLP(1, (2,)), torch.tensor([-1])).tolist()  # W_1, b_1, W_o, b_o
        [-2, -1, 4, 3, -6, -5, -7]
    """
    if any(width % 2 for width in network.hidden):
        raise ValueError(
            f"expected even hidden widths for an equivariant network, whose units come in pairs, got {network.hidden}"
        )
    signs = check_signs(signs, network.dimension).to(torch.int32)
    inputs = torch.cat([signs, *[torch.cat([signs, torch.ones_like(signs)])] * network.frequencies])
    outputs = sign_of(parity) * signs
    places = torch.arange(1, network.size + 1, dtype=torch.int32)
    partners = places.clone()
    for index, (there, here) in enumerate(zip(network.layers(partners), network.layers(places), strict=True)):
        for target, source in zip(there, here, strict=True):
            if source is None:
                continue
            if target.ndim == 2:
                source = source.roll(source.shape[1] // 2, 1) if index else source * inputs
            if index < len(network.hidden):
                target.copy_(source.roll(len(source) // 2, 0))
            else:
                target.copy_(outputs.view(-1, *[1] * (source.ndim - 1)) * source)
    return partners


def tied(
    parameters: Tensor,  # [models, size]
    partners: Tensor,  # [size]: of `mirror`
) -> Tensor:
    """The parameters with one of each pair taken from the other: equivariant, and each weight of the same law."""
    index, sign = partners.abs().long() - 1, partners.sign()
    place = torch.arange(len(index), device=index.device)
    followed = torch.where(index < place, sign * parameters[:, index], parameters)
    return torch.where((index == place) & (sign < 0), torch.zeros_like(followed), followed)
