"""The systems by name."""

import dataclasses

import pytest
import torch

from eqflow.systems import SYSTEMS, PointSystem, system

ATTRACTORS = {name for name, entry in SYSTEMS.items() if hasattr(entry, "chains")}  # their tests sample them


def test_every_system_says_what_it_is():
    assert {"lorenz", "stochastic-lorenz", "ornstein-uhlenbeck", "ring", "two-moons", "swiss-roll"} <= set(SYSTEMS)
    for name, entry in SYSTEMS.items():
        assert isinstance(entry, PointSystem), name
        assert dataclasses.is_dataclass(entry) and type(entry).__doc__ and entry.source
        assert hash(entry) == hash(dataclasses.replace(entry)) and dataclasses.replace(entry) == entry
        points = entry.sample(0 if name in ATTRACTORS else 3, seed=0)
        assert points.shape[1] == entry.dimension and points.dtype == torch.float64 and points.isfinite().all()


def test_the_catalogue_cannot_be_changed():
    with pytest.raises(TypeError):
        SYSTEMS["lorenz"] = None
    with pytest.raises(dataclasses.FrozenInstanceError):
        SYSTEMS["lorenz"].rho = 1.0


@pytest.mark.parametrize(("name", "close"), [("lorentz", "lorenz"), ("moons", "two-moons"), ("roessler", "rossler")])
def test_unknown_systems_list_what_comes_close(name, close):
    with pytest.raises(ValueError, match=rf"no system '{name}': did you mean {close}"):
        system(name)
    assert system(close) is SYSTEMS[close]
