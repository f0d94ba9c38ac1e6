"""Scores: the gradient of a log density, trained or in closed form, always score(state) -> same shape.

Noise convention: y = sqrt(alpha) x_0 + sqrt(1 - alpha) epsilon, so alpha is the squared coefficient of the signal. What
knows every noise level, `Points` and `Denoiser`, gives the score of one by `.at(alpha)`.
"""

from eqflow.score.cccp import Clusters, cluster, denoise
from eqflow.score.closed_form import Gaussian, KernelScore, Mixture
from eqflow.score.contract import PREDICTIONS, Folding, Score, folding
from eqflow.score.denoiser import Denoiser, DenoiserScore, DenoiserShape
from eqflow.score.density import Density, DensityScore, DensityShape
from eqflow.score.density_train import DensityFit, DensityTraining, train_density
from eqflow.score.pattern import PatternDenoiser, PatternScore
from eqflow.score.pattern_data import Fields, Simulated, Stored
from eqflow.score.pattern_options import PatternTraining
from eqflow.score.pattern_shape import PatternShape
from eqflow.score.pattern_train import PatternFit, train_pattern
from eqflow.score.points import Points
from eqflow.score.pool import Pool, make_pool, sample_pool
from eqflow.score.scattered import Scattered
from eqflow.score.schedule import ContinuousSchedule, CosineSchedule, LinearSchedule, Schedule
from eqflow.score.stored import StoredScore, about_score, pretrained, read_score
from eqflow.score.train import DenoiserFit, DenoiserTraining, train_denoiser

__all__ = [
    "PREDICTIONS",
    "Clusters",
    "ContinuousSchedule",
    "CosineSchedule",
    "Denoiser",
    "DenoiserFit",
    "DenoiserScore",
    "DenoiserShape",
    "DenoiserTraining",
    "Density",
    "DensityFit",
    "DensityScore",
    "DensityShape",
    "DensityTraining",
    "Fields",
    "Folding",
    "Gaussian",
    "KernelScore",
    "LinearSchedule",
    "Mixture",
    "PatternDenoiser",
    "PatternFit",
    "PatternScore",
    "PatternShape",
    "PatternTraining",
    "Points",
    "Pool",
    "Scattered",
    "Schedule",
    "Score",
    "Simulated",
    "Stored",
    "StoredScore",
    "about_score",
    "cluster",
    "denoise",
    "folding",
    "make_pool",
    "pretrained",
    "read_score",
    "sample_pool",
    "train_denoiser",
    "train_density",
    "train_pattern",
]
