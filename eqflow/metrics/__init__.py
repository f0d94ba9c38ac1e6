"""How alike, how close, how chaotic, how well kept: numbers for flows, scores and sets of points, with their errors."""

from eqflow.metrics.creatures import Sightings, find_creatures, rotational_order
from eqflow.metrics.denoising import DenoisingError, DenoisingReport, denoising_error, denoising_report
from eqflow.metrics.ensemble import EnsembleReport, compare_ensembles, spectrum_log_ratio, two_point_correlation
from eqflow.metrics.equivariance import TURNS, equivariance_error
from eqflow.metrics.fidelity import Cosines, Fidelity, displacement_cosines, fidelity
from eqflow.metrics.flights import Flights, follow_creatures
from eqflow.metrics.headroom import Headroom, kernel_headroom
from eqflow.metrics.lyapunov import Lyapunov, lyapunov_spectrum
from eqflow.metrics.mmd import MMD, MMDTest, mmd, mmd_test
from eqflow.metrics.nulls import DirectionNull, ShuffleNull, permutation_null, random_skew_fields
from eqflow.metrics.random_field import GaussianField, GaussianScore
from eqflow.metrics.residual import Residual, Stein, residual, stein
from eqflow.metrics.score_quality import Asymmetry, FieldStein, asymmetry, stein_identity
from eqflow.metrics.similarity import MeanSimilarity, align, cosines, mean_similarity, similarity
from eqflow.metrics.spectrum import radial_spectrum
from eqflow.metrics.symmetry import SignSymmetries, sign_symmetries
from eqflow.metrics.tracking import track_solitons
from eqflow.metrics.tracks import MeanSquareDisplacement, Tracks
from eqflow.metrics.two_trajectories import largest_exponent
from eqflow.metrics.wiener import Trivial, Wiener

__all__ = [
    "MMD",
    "TURNS",
    "Asymmetry",
    "Cosines",
    "DenoisingError",
    "DenoisingReport",
    "DirectionNull",
    "EnsembleReport",
    "Fidelity",
    "FieldStein",
    "Flights",
    "GaussianField",
    "GaussianScore",
    "Headroom",
    "Lyapunov",
    "MMDTest",
    "MeanSimilarity",
    "MeanSquareDisplacement",
    "Residual",
    "ShuffleNull",
    "Sightings",
    "SignSymmetries",
    "Stein",
    "Tracks",
    "Trivial",
    "Wiener",
    "align",
    "asymmetry",
    "compare_ensembles",
    "cosines",
    "denoising_error",
    "denoising_report",
    "displacement_cosines",
    "equivariance_error",
    "fidelity",
    "find_creatures",
    "follow_creatures",
    "kernel_headroom",
    "largest_exponent",
    "lyapunov_spectrum",
    "mean_similarity",
    "mmd",
    "mmd_test",
    "permutation_null",
    "radial_spectrum",
    "random_skew_fields",
    "residual",
    "rotational_order",
    "sign_symmetries",
    "similarity",
    "spectrum_log_ratio",
    "stein",
    "stein_identity",
    "track_solitons",
    "two_point_correlation",
]
