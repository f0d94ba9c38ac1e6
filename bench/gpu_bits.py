"""Is the device right: two stages of bench.gpu, bits against the CPU and a run for compute-sanitizer."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from bench import workload
from bench.gpu_setting import Setting, attempt
from eqflow import ops

# Small, and every kernel of kernels/langevin.cu in turn: pixels, channels, tiles of one, two rows and more, any shape.
LANGEVIN = (
    *(((3, channels, 16, 12), 0) for channels in (2, 3, 17)),
    *(((2, channels, 18, 20), radius) for channels in (1, 2, 3, 6) for radius in (1, 2)),
    *(((2, 2, 33, 17), 0), ((4, 17, 7, 5), 2), ((1000, 3), 0)),
)


def _difference(host: Tensor, device: Tensor) -> dict:
    device = device.cpu()
    apart = (host.double() - device.double()).abs()
    differing = int((host.view(torch.int32) != device.view(torch.int32)).sum())
    finite = bool(device.isfinite().all())
    return {"values": host.numel(), "differing": differing, "largest": float(apart.max()), "finite": finite}


def bits(setting: Setting) -> Iterator[dict]:
    """Each operator on the device and on the CPU: how many values differ, and by how much."""
    yield from _simulator(setting)
    yield from _normals(setting)
    yield from _dynamics(setting)


def _simulator(setting: Setting) -> Iterator[dict]:
    shapes = [
        (3, 128, 128),
        (2, 100, 100),
        (2, 96, 160),
        (2, 33, 65),
        (3, 5, 7),
        (1, 64, 64),
        (1, 256, 256),
        (1, 512, 300),
    ]
    cases = [(*shape, stencil, dt, 200) for shape in shapes for stencil, dt in (("5-point", 1.0), ("9-point", 0.5))]
    cases += [(132, 128, 128, "5-point", 1.0, 1000), (4, 128, 128, "5-point", 1.0, 10_000)]
    for batch, height, width, stencil, dt, steps in cases[:2] if setting.dry else cases:
        if setting.dry:
            batch, height, width, steps = 1, 16, 12, 9
        state, arguments = workload.developed(batch, height, width), workload.arguments(stencil, dt)
        host = ops.gray_scott(state, steps, **arguments, backend="native")
        for backend in setting.backends():
            case = {"case": f"{batch} x {height} x {width}, {stencil}, dt {dt}, {steps} steps", "backend": backend}

            def compare(state=state, steps=steps, arguments=arguments, backend=backend, host=host) -> dict:
                return _difference(host, ops.gray_scott(state.to(setting.device), steps, **arguments, backend=backend))

            yield attempt(case, compare)


def _normals(setting: Setting) -> Iterator[dict]:
    for (batch, sites), seed, step in itertools.product(
        ((3, 5), (64, 4096), (513, 1027)), (0, 2**63 + 5), (0, 2**33 + 1)
    ):
        if setting.dry and (seed or batch > 3):
            continue
        counter = {"seed": seed, "step": step, "first_sample": 7}
        host = ops.normal(batch, sites, **counter, backend="native")
        for backend in setting.backends():

            def draw(batch=batch, sites=sites, counter=counter, backend=backend, host=host) -> dict:
                return _difference(host, ops.normal(batch, sites, **counter, device=setting.device, backend=backend))

            yield attempt({"case": f"normals {batch} x {sites}, seed {seed}, step {step}", "backend": backend}, draw)


def _update(shape: tuple[int, ...], radius: int, device: torch.device, backend: str) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    state, output = torch.randn(2, *shape, generator=generator).to(device)
    kernels = torch.randn(2, shape[1], shape[1], 2 * radius + 1, 2 * radius + 1, generator=generator).to(device)
    counter = {"seed": 3, "step": 2**33 + 1, "first_sample": 7}
    return ops.langevin_update(state, output, *kernels, 0.3, **counter, backend=backend)


def _score(count: int, dimension: int, device: torch.device, backend: str) -> Tensor:
    queries, points = torch.randn(2, count, dimension, generator=torch.Generator().manual_seed(0)).to(device)
    return ops.kernel_score(queries, points, alpha=0.95, backend=backend).score


def _dynamics(setting: Setting) -> Iterator[dict]:
    cases = [((64, 2, 128, 128), 0), ((5, 4, 33, 65), 1), *LANGEVIN]
    runs = {f"langevin {shape}, radius {radius}": partial(_update, shape, radius) for shape, radius in cases}
    runs |= {f"kernel score {n}, d = {d}": partial(_score, n, d) for n, d in ((200, 3), (5000, 3), (5000, 8))}
    for case, run in itertools.islice(runs.items(), 1 if setting.dry else None):
        host = run(torch.device("cpu"), "native")
        for backend in setting.backends():
            compare = partial(lambda run, host, name: _difference(host, run(setting.device, name)), run, host, backend)
            yield attempt({"case": case, "backend": backend}, compare)


def sanitized(setting: Setting) -> Iterator[dict]:
    """Every native kernel on small sizes, for compute-sanitizer to watch."""
    for height, width in ((128, 128), (100, 100), (33, 65), (5, 7), (3, 3), (64, 256), (150, 131)):
        state = torch.rand(2, 2, height, width, device=setting.device) / 2
        for stencil, dt in (("5-point", 1.0), ("9-point", 0.5)):
            ops.gray_scott(state, 18, **workload.arguments(stencil, dt), every=9, backend="native")
    for batch, sites in ((1, 1), (3, 5), (300, 3), (5, 1027), (2, 65_536)):
        ops.normal(batch, sites, seed=1, device=setting.device, backend="native")
    for shape, radius in LANGEVIN:
        _update(shape, radius, setting.device, "native")
    for count, dimension in ((1, 1), (65, 3), (513, 16)):
        _score(count, dimension, setting.device, "native")
    terms = ops.FieldTerm((1, 0), "laplacian"), ops.FieldTerm((2, 1)), ops.FieldTerm((0, 1), "bilaplacian")
    for height, width in ((16, 16), (33, 65)):
        state = torch.rand(3, 2, height, width, device=setting.device)
        ops.field_moments(state, ops.Functionals.up_to(2, 3, 2), terms, backend="native")
    for network in (ops.MLP(3, (8, 17), 2), ops.MLP(3, (128, 128, 128)), ops.MLP(16, (256, 128, 256))):
        points, weights = torch.rand(2, 5, network.dimension, device=setting.device), network.initial(2, seed=1)
        weights = weights.to(setting.device).requires_grad_()
        ops.mlp_divergence(points, weights, network, strain=True, backend="native").divergence.sum().backward()
        weights, options = weights.detach(), {"objective": "product", "probes": 3, "backend": "native"}
        ops.flow_loss(points, points, weights, network, **options)
        ops.flow_train(points[0], points[0], weights, None, network, rates=[1e-3] * 2, rows=4, **options)
    setting.synchronize()
    yield {"ran": "all native kernels"}
