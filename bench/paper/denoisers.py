"""Trained scores, kept on disk like the flows."""

from __future__ import annotations

from torch import Tensor

from bench.paper.files import Checkpoint, digest
from bench.paper.study import Study
from eqflow.score import Denoiser, DenoiserShape, DenoiserTraining, train_denoiser


def trained(study: Study, points: Tensor, shape: DenoiserShape, training: DenoiserTraining, name: str) -> Denoiser:
    """The denoiser of some points, from the disk or trained."""
    if study.quick:
        training = DenoiserTraining(steps=study.steps(10), batch=64)
    key = digest(points, shape, training)
    checkpoint = Checkpoint(study.cache, f"score-{name}", key)

    def make() -> dict[str, Tensor]:
        fit = train_denoiser(points, shape, training, state=checkpoint.load(), save=checkpoint.save)
        checkpoint.done()
        return fit.denoiser.state_dict()

    denoiser = Denoiser(shape)
    denoiser.load_state_dict(study.cache.get(f"score-{name}", key, make))
    return denoiser.requires_grad_(False)
