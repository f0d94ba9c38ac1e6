import math
from dataclasses import replace

import pytest
import torch

from eqflow.dynamics import FlowSettings, LearnedFlow, PolynomialField, closed_form, diagnose
from eqflow.dynamics.diagnosis import derivatives
from eqflow.ops.flow_loss import reference_loss


@pytest.mark.parametrize("law", ["gaussian", "rademacher"])
def test_the_objective_of_a_network_is_the_loss_of_its_training(two_gaussians, law):
    points, scores = two_gaussians(0.4)
    points, scores = points[:500], scores[:500]
    flow = LearnedFlow.random(2, FlowSettings(hidden=(16, 16)), models=3, seed=1)
    flow = replace(flow, parameters=3 * flow.parameters)  # for an output that the 1e-5 of the norm is nothing to
    loss, *_ = reference_loss(points, scores, flow.parameters, flow.network, "expected", 4, law, "scalar", 0, 0, 0)
    found = diagnose(flow.calibrated(points), points, scores, probes=4, law=law)
    torch.testing.assert_close(found.objective, loss.double(), rtol=1e-3, atol=0)
    torch.testing.assert_close(found.objective, found.residual + found.strain / 2)
    assert found.cosines is None and found.residual.shape == (3,)


def test_modes_are_found_to_be_what_they_are(two_gaussians):
    points, scores = two_gaussians(0.4)
    points, scores = points.double(), scores.double()
    modes = closed_form(points, scores, degree=4)
    found = diagnose(modes, points, scores, modes=modes)
    torch.testing.assert_close(found.residual, modes.residual, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(found.objective, modes.objective, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(found.cosines, torch.eye(5).double(), rtol=0, atol=1e-6)
    assert (found.residual_error > 0).all() and (found.r_squared < 1).all()
    half = closed_form(points[::2], scores[::2], degree=4)
    held_out = diagnose(half, points[1::2], scores[1::2])
    torch.testing.assert_close(held_out.objective[:2], half.objective[:2], rtol=0.1, atol=0)


def test_networks_and_polynomials_are_measured_alike():
    points = torch.randn(50, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    flow = LearnedFlow.random(3, FlowSettings(hidden=(8,)), seed=1)

    class Opaque:
        velocity, jacobian = staticmethod(flow.velocity), staticmethod(flow.jacobian)

    for law in ("gaussian", "rademacher"):
        for here, there in zip(derivatives(flow, points, law), derivatives(Opaque, points, law), strict=True):
            torch.testing.assert_close(here, there, rtol=1e-11, atol=1e-12)


def test_a_flow_that_keeps_the_density_has_no_residual():
    points = torch.randn(100, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    turn = PolynomialField(torch.eye(2, dtype=torch.int64), torch.tensor([[0.0, -1.0], [1.0, 0.0]]))
    stretch = PolynomialField(torch.eye(2, dtype=torch.int64), torch.eye(2))
    assert diagnose(turn, points, -points).objective == 0
    found = diagnose(stretch, points, -points, probes=math.inf)
    radius = points.square().sum(1)
    torch.testing.assert_close(found.residual[0], 2 * (2 - radius).square().mean() / radius.mean())
    torch.testing.assert_close(found.strain[0], 2 * 2 / radius.mean())
