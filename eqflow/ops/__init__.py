"""Operators with hand-written kernels: one contract each, interchangeable backends, a readable reference."""

from eqflow.ops._backend import BackendError, backends
from eqflow.ops.convolution_trace import convolution_divergence
from eqflow.ops.divergence import Divergence, mlp_divergence
from eqflow.ops.field_moments import field_moments
from eqflow.ops.field_terms import FieldTerm, Functionals, monomials_up_to
from eqflow.ops.flow_loss import FlowLoss, FlowTraining, flow_loss, flow_train
from eqflow.ops.gray_scott import gray_scott
from eqflow.ops.kernel_score import KernelScores, kernel_score
from eqflow.ops.langevin import langevin_step, langevin_update
from eqflow.ops.mlp import MLP
from eqflow.ops.normal import normal
from eqflow.ops.scatter import Scatter, scatter
from eqflow.ops.trace import FieldDivergence, field_divergence

__all__ = [
    "MLP",
    "BackendError",
    "Divergence",
    "FieldDivergence",
    "FieldTerm",
    "FlowLoss",
    "FlowTraining",
    "Functionals",
    "KernelScores",
    "Scatter",
    "backends",
    "convolution_divergence",
    "field_divergence",
    "field_moments",
    "flow_loss",
    "flow_train",
    "gray_scott",
    "kernel_score",
    "langevin_step",
    "langevin_update",
    "mlp_divergence",
    "monomials_up_to",
    "normal",
    "scatter",
]
