import sys

import pytest
import torch

from eqflow.score import PatternDenoiser, PatternShape
from eqflow.score.networks import UNet

NEEDED = "the network unet is the extra eqflow[unet]"


@pytest.fixture(scope="module")
def unet():
    pytest.importorskip("diffusers", reason=NEEDED)
    torch.manual_seed(0)
    return UNet(2, 2).requires_grad_(False)


def shifted(unet, shift, size=64):
    state, time = torch.randn(1, 2, size, size), torch.zeros(1)
    before = unet(state, time)
    away = unet(state.roll((shift, shift), (2, 3)), time) - before.roll((shift, shift), (2, 3))
    return float(away.norm() / before.norm())


def test_it_is_the_network_of_the_paper(unet):
    assert sum(weight.numel() for weight in unet.parameters()) == 905_666
    layers = [layer for layer in unet.modules() if isinstance(layer, torch.nn.Conv2d)]
    padded = [layer for layer in layers if any(layer.padding)]
    assert (len(layers), len(padded)) == (51, 40)
    assert all(layer.padding_mode == "circular" for layer in padded)


def test_it_commutes_with_shifts_by_four_alone(unet):
    assert shifted(unet, 4) < 1e-5
    assert min(shifted(unet, shift) for shift in (1, 2, 3)) > 0.01


def test_grids_that_it_cannot_halve_twice_are_refused(unet):
    with pytest.raises(ValueError, match=r"divisible by 4, .*\[6, 8\]: take 'local'"):
        unet(torch.zeros(1, 2, 6, 8), torch.zeros(1))


def test_a_denoiser_of_it_knows_the_noise(unet):
    denoiser = PatternDenoiser(PatternShape(network="unet", alpha=None), [0.0, 0.0], [1.0, 1.0])
    torch.nn.init.normal_(denoiser.network.model.conv_out.weight)
    field = torch.randn(2, 2, 16, 16)
    assert not torch.allclose(denoiser.network_output(field, 0.2), denoiser.network_output(field, 0.5))


def test_its_weights_are_those_of_the_seed_and_take_nothing_from_the_caller(unet):
    torch.manual_seed(4)
    expected = torch.rand(2)
    torch.manual_seed(4)
    shape = PatternShape(network="unet")
    first, same, other = (PatternDenoiser(shape, [0.0] * 2, [1.0] * 2, seed=seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.rand(2), expected)
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert not torch.equal(first["network.model.conv_in.weight"], other["network.model.conv_in.weight"])
    assert not first["network.model.conv_out.weight"].any()


def test_without_diffusers_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(ImportError, match=r"pip install 'eqflow\[unet\]', or take 'local'"):
        UNet(2, 2)
