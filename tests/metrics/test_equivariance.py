"""Shifts, flips and turns: exact for the local network, not for the paper's U-Net; and no pixel is seen from afar."""

import math

import pytest
import torch

from eqflow import ops
from eqflow.metrics import equivariance_error
from eqflow.score import PatternDenoiser, PatternShape

TURNS = ("flip rows", "flip columns", "transpose", "quarter turn")


def normals(*shape, seed=0):
    return ops.normal(shape[0], math.prod(shape[1:]), seed=seed).view(shape)


def network_of(**shape):
    """The network of a denoiser, with a last layer that is not zero, as after training."""
    denoiser = PatternDenoiser(PatternShape(**shape), mean=[0.0, 0.0], std=[0.5, 0.3])
    last = denoiser.network.leave if denoiser.shape.network == "local" else denoiser.network.model.conv_out
    with torch.no_grad():
        for parameter in last.parameters():
            parameter.copy_(0.2 * normals(1, parameter.numel(), seed=1).view_as(parameter))
    return lambda fields: denoiser.network_output(fields, denoiser.sigma), denoiser


@pytest.mark.parametrize("size", [(64, 64), (96, 96), (33, 50)])
def test_the_local_network_is_equivariant_to_every_shift(size):
    network, _ = network_of()
    fields = normals(1, 2, *size)
    found = equivariance_error(network, fields)
    assert len(found) == 5 and max(found.values()) < 1e-5, found
    if size == (33, 50):
        conservative = network_of(conservative=True)[1]
        assert max(equivariance_error(conservative, fields).values()) < 1e-5
        # Turns are learnt, not built in.
        assert min(equivariance_error(network, fields, shifts=(), turns=TURNS).values()) > 0.1


def test_the_unet_is_equivariant_to_four_pixels_only():
    pytest.importorskip("diffusers", reason="the network 'unet' needs diffusers")
    network, _ = network_of(network="unet")
    found = equivariance_error(network, normals(1, 2, 64, 64), shifts=((1, 1), (1, 0), (2, 2), (4, 0), (4, 8)))
    assert min(found[1, 1], found[1, 0], found[2, 2]) > 0.05 and max(found[4, 0], found[4, 8]) < 1e-4, found


@pytest.mark.parametrize("dilations", [(1,) * 6, (1, 2, 4)])
def test_the_local_network_sees_nothing_beyond_its_radius(dilations):
    network, denoiser = network_of(dilations=dilations)
    radius = denoiser.shape.radius
    fields = normals(1, 2, 30, 33)
    touched = fields.clone()
    touched[0, 1, 4, 30] += 1
    response = (network(touched) - network(fields)).abs().sum((0, 1))
    rows, columns = ((torch.arange(n) - at + n // 2) % n - n // 2 for n, at in ((30, 4), (33, 30)))
    inside = (rows.abs()[:, None] <= radius) & (columns.abs() <= radius)
    assert (response[~inside] == 0).all()
    assert response[(4 + radius) % 30, (30 - radius) % 33] > 0  # the corner of the field of view


def test_errors_are_those_of_a_grating():
    grating = torch.tensor([1.0, 3.0]).repeat(4)
    fields = torch.ones(1, 1, 8, 8)
    found = equivariance_error(lambda x: x * grating, fields, shifts=((0, 1), (1, 0), (3, 2)), turns=TURNS)
    odd = 2 / math.sqrt(5)  # a difference of 2 everywhere, of values 1 and 3
    assert found[0, 1] == pytest.approx(odd) and found[1, 0] == found[3, 2] == found["flip rows"] == 0
    assert found["flip columns"] == pytest.approx(odd) and found["transpose"] == pytest.approx(math.sqrt(2 / 5))


def test_an_isotropic_stencil_keeps_all_symmetries_of_other_grids_too():
    def smooth(x):
        return x + sum(x.roll(step, axis) for step in (-1, 1) for axis in (2, 3))

    found = equivariance_error(smooth, normals(2, 2, 9, 14).double(), turns=TURNS)
    assert max(found.values()) < 1e-15


def test_a_turn_of_another_name_is_refused():
    with pytest.raises(ValueError, match=r"expected turns among 'flip rows'.*got 'mirror'"):
        equivariance_error(torch.sin, torch.ones(1, 1, 4, 4), turns=("mirror",))
