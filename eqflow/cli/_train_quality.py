"""What a trained score is worth: its error beside linear ones, and what a true score would fulfil."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_CURL_FIELDS = 4
_BATCH = 8


def measure(denoiser: Any, alpha: float, train: Tensor, apart: Tensor, seed: int) -> dict[str, Any]:
    """On fields that training has not seen, in float32.

    Args:
        denoiser: a `PatternDenoiser`.
        alpha: the noise level.
        train: fields of the training, for the filters.
        apart: other fields.
        seed: of noise and probes.
    """
    from eqflow.metrics import asymmetry, denoising_report, equivariance_error, stein_identity

    score = denoiser.at(alpha)

    def cleaned(noised: Tensor) -> Tensor:
        return denoiser(noised, score.sigma)

    facts: dict[str, Any] = {"alpha": alpha, "sqrt_alpha": alpha**0.5, "sigma": score.sigma}
    facts |= {"radius": denoiser.shape.radius, "parameters": sum(weight.numel() for weight in denoiser.parameters())}
    if len(apart) < 2:
        return {**facts, "denoising": None, "asymmetry": None, "stein": None, "equivariance": None}
    found = denoising_report(cleaned, apart, score.sigma, train=train, seed=seed, batch=_BATCH)
    denoising = {name: value.tolist() for name, value in found._asdict().items()}
    states = score.noised(apart, seed=seed)
    few = states[:_CURL_FIELDS] / score.alpha**0.5
    curl = asymmetry(cleaned, few, seed=seed, batch=1)
    stein = stein_identity(score, states, batch=_BATCH)
    with torch.no_grad():
        shifts = ((1, 0), (2, 3), (4, 4), (7, 5))
        errors = equivariance_error(lambda x: denoiser.network_output(x, score.sigma), few[:1], shifts=shifts)
    return {
        **facts,
        "denoising": denoising,
        "asymmetry": {"value": curl.asymmetry, "standard_error": curl.standard_error, "fields": len(few)},
        "stein": {"product": float(stein.product), "standard_error": float(stein.product_error)},
        "equivariance": {f"{rows},{columns}": error for (rows, columns), error in errors.items()},
    }
