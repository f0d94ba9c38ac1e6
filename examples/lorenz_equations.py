"""The Lorenz equations from 100,000 points without an order: `python examples/lorenz_equations.py`."""

import torch

from eqflow.fokker_planck import eliminate, from_library, polynomial, weak_form
from eqflow.systems import Lorenz

points = Lorenz(diffusion=10.0).sample(100_000, seed=0)  # [100000, 3], with noise sqrt(2 D) dW
points = points[torch.randperm(len(points), generator=torch.Generator().manual_seed(0))]
model = from_library(polynomial("x y z", 2), diffusion=10.0)  # 10 candidates for each of x', y' and z'
found = eliminate(weak_form(points, model, count=150, scale=0.7))
print(found)
