"""Points spread over processes, added up by torch.distributed."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from eqflow.fokker_planck import eliminate, from_library, polynomial, weak_form

PROGRAM = """
import sys
import torch
from torch import distributed
from eqflow.fokker_planck import eliminate, from_library, polynomial, weak_form

rank, folder = int(sys.argv[1]), sys.argv[2]
distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
points = torch.load(f"{folder}/points.pt")[rank::2]
model = from_library(polynomial("x y", 3), diffusion=0.5)
fit = eliminate(weak_form(list(points.split(1000)), model, count=60, combine=distributed.all_reduce))
torch.save((fit.names, fit.coefficients), f"{folder}/{rank}.pt")
distributed.destroy_process_group()
"""


@pytest.mark.slow
def test_two_processes_find_what_one_finds(tmp_path):
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(20_000, 2, dtype=torch.float64, generator=generator) * torch.tensor([1.0, 0.6])
    torch.save(points, tmp_path / "points.pt")
    model = from_library(polynomial("x y", 3), diffusion=0.5)
    whole = eliminate(weak_form(points, model, count=60))
    command = [sys.executable, "-c", PROGRAM]
    ranks = [subprocess.Popen([*command, str(rank), str(tmp_path)], cwd=Path.cwd()) for rank in range(2)]
    assert [rank.wait(timeout=120) for rank in ranks] == [0, 0]
    for rank in range(2):
        names, coefficients = torch.load(tmp_path / f"{rank}.pt")
        assert names == whole.names
        torch.testing.assert_close(coefficients, whole.coefficients, rtol=1e-9, atol=1e-12)
