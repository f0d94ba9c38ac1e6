"""Standard normals by counter: the same numbers on every device, however a batch is split, after any restart."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from eqflow.ops import _backend, philox


def reference(batch: int, sites: int, seed: int, step: int, stream: int, first_sample: int, device) -> Tensor:
    """The specification: Box-Muller on the Philox words of (seed, stream, step, sample, site).

    In float64, rounded once. The kernels use float32 polynomials in a fixed order and differ by at most 1e-6.
    """
    samples = torch.arange(first_sample, first_sample + batch, device=device)
    uniform = philox.unit_interval(philox.words(samples, 4 * ((sites + 3) // 4), seed=seed, step=step, stream=stream))
    radius, angle = (-2 * uniform[:, 0::2].log()).sqrt(), 2 * math.pi * uniform[:, 1::2]
    return torch.stack([radius * angle.cos(), radius * angle.sin()], -1).flatten(1)[:, :sites].float().contiguous()


torch.library.define(
    "eqflow::normal",
    "(SymInt batch, SymInt sites, int seed, int step, int stream, int first_sample, Device device, str backend)"
    " -> Tensor",
    tags=[torch.Tag.pt2_compliant_tag],
)


@torch.library.impl("eqflow::normal", "CompositeExplicitAutograd")
def _run(batch, sites, seed, step, stream, first_sample, device, backend):
    backend = _backend.choose(backend, device)
    seed &= 2**64 - 1  # the schema carries it as a signed number
    if batch * sites == 0:
        return torch.empty((batch, sites), device=device)
    if backend == "reference":
        return reference(batch, sites, seed, step, stream, first_sample, device)
    output = torch.empty((batch, sites), device=device)
    if backend == "native":
        _backend.native_module().normal(output, seed, step, stream, first_sample, torch.get_num_threads())
    else:
        _backend.triton_kernels("normal").normal(output, seed, step, stream, first_sample)
    return output


@torch.library.register_fake("eqflow::normal")
def _(batch, sites, seed, step, stream, first_sample, device, backend):
    return torch.empty((batch, sites), device=device)


def normal(
    batch: int,
    sites: int,
    *,
    seed: int,
    step: int = 0,
    stream: int = 0,
    first_sample: int = 0,
    device: str | torch.device = "cpu",
    backend: str = "auto",
) -> Tensor:
    """Independent standard normals, one per (seed, stream, step, sample, site).

    Counter-based: Philox4x32-10 with key = seed and counter = (site // 4, sample, step, stream), then a portable
    Box-Muller transform. Every native and Triton backend gives the same bits, on any device, for any split of a batch
    over calls (`first_sample` says where a part begins), before and after any restart. |value| < 5.77.

    Args:
        batch: number of samples.
        sites: numbers per sample, at most 2^34.
        seed: key, in [0, 2^64).
        step: time step, in [0, 2^56).
        stream: purpose of the numbers, in [0, 256); see `eqflow.ops.philox.STREAMS`.
        first_sample: global index of the first sample; sample indices stay below 2^32.
        device: where the numbers are made.
        backend: "auto", "reference", "native" or "triton".

    Returns:
        float32 tensor [batch, sites].

    Raises:
        ValueError: an argument is out of range.
        BackendError: the backend or the device is not available here.

    Example:
        >>> whole = normal(4, 3, seed=1)
        >>> parts = torch.cat([normal(2, 3, seed=1), normal(2, 3, seed=1, first_sample=2)])
        >>> torch.equal(whole, parts)
        True
    """
    for name, value, low, high in (
        ("batch", batch, 0, 2**32 - first_sample),
        ("sites", sites, 0, 2**34),
        ("seed", seed, 0, 2**64 - 1),
        ("step", step, 0, 2**56 - 1),
        ("stream", stream, 0, 255),
        ("first_sample", first_sample, 0, 2**32 - 1),
    ):
        if not low <= value <= high:
            raise ValueError(f"expected {name} in [{low}, {high}], got {value}")
    signed = seed - 2**64 if seed >= 2**63 else seed
    device = _backend.check_device(device)
    return torch.ops.eqflow.normal.default(batch, sites, signed, step, stream, first_sample, device, backend)
