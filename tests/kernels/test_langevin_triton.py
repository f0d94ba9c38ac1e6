"""The Triton kernel of the Langevin update against the native one: in the interpreter, or compiled on a GPU."""

import math

import numpy as np
import pytest
import torch

from eqflow import ops

pytest.importorskip("triton")
from triton.runtime import interpreter

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
CASES = [  # shape, radius
    ((2, 2, 12, 16), 0),
    ((2, 3, 5, 7), 0),
    ((1, 17, 3, 4), 0),
    ((2, 1, 100, 100), 0),  # more than one program a channel
    ((3, 2, 9, 8), 1),
    ((2, 4, 6, 7), 1),
    ((1, 2, 8, 8), 2),
    ((1, 2, 4, 2), 3),
    *(((70, dimension), 0) for dimension in (1, 2, 3, 7)),
]


@pytest.fixture
def fma_rounds_once(monkeypatch):
    """Mends the interpreter of Triton before 3.9, whose fma rounds twice; after that, bits can be compared."""

    def create_fma(self, x, y, z):
        exact = x.data.astype(np.float64) * y.data + z.data
        return interpreter.TensorHandle(exact.astype(np.float32), z.dtype.scalar)

    monkeypatch.setattr(interpreter.InterpreterBuilder, "create_fma", create_fma)


def both(shape, radius, step=2**32 + 5, **options):
    """The update by Triton and by the native kernel."""
    random = torch.Generator().manual_seed(0)
    channels, size = shape[1], 2 * radius + 1
    state, output, base = (torch.randn(shape, generator=random) for _ in range(3))
    kernels = torch.randn(2, channels, channels, size, size, generator=random) / math.sqrt(2 * channels * size**2)
    if options.pop("half", False):
        output = output.bfloat16()
    if options.pop("alone", False):
        output = None
    if options.get("base_scale"):
        options["base"] = base
    fields = {"state": state, "output": output, "state_kernel": kernels[0], "output_kernel": kernels[1], **options}
    options = {"noise_scale": 0.3, "seed": 2**63 + 5, "first_sample": 3}
    moved = {name: x.to(DEVICE) if isinstance(x, torch.Tensor) else x for name, x in fields.items()}
    triton = ops.langevin_update(**options | moved, step=step, backend="triton").cpu()
    return triton, ops.langevin_update(**options | fields, step=step, backend="native")


@pytest.mark.parametrize("options", [{}, {"half": True}, {"alone": True, "noise_scale": 0.0}, {"base_scale": 0.5}])
@pytest.mark.parametrize("shape, radius", CASES)
def test_within_2e_6_of_native(shape, radius, options):
    triton, native = both(shape, radius, **options)
    assert triton.shape == shape
    torch.testing.assert_close(triton, native, rtol=0, atol=2e-6 * native.abs().max().item())


@pytest.mark.parametrize("shape, radius", CASES)
def test_equal_to_native_to_the_bit(fma_rounds_once, shape, radius):
    for options in ({"half": True}, {"base_scale": 0.5}):
        assert torch.equal(*both(shape, radius, **options))
    assert torch.equal(*both(shape, radius, step=torch.tensor(2**40 + 3)))
