"""Velocity, divergence and strain of multilayer perceptrons in Triton: eqflow/ops/divergence.py holds the contract.

States and tangents lie in memory, [models, 1 + directions, rows, width]: place 0 is the state, the others are J z for
one direction each. One product a layer takes all of them through the weights; it is the vendor's own, in full float32.
The kernels do what lies between the products: the encoding, SiLU with its first two derivatives over all tangents at
once, the random probes, and the reading of the Jacobian. kernels/divergence.cu keeps it all in shared memory instead.
"""

from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from eqflow.kernels.normal import site_normals, site_words
from torch import Tensor

# Numbers of one program. The interpreter pays for each operation of each program, not for each number.
_BLOCK, _INTERPRETER_BLOCK = 512, 8192
_PROBES = 3  # the stream of probes, see eqflow/ops/philox.py


@triton.jit
def sine_cosine(angle):
    """Below 2e-7 absolute for |angle| up to 10^4: reduced by quarters of a turn in three parts."""
    quarter = tl.floor(angle * 0.636619772367581343 + 0.5)
    r = tl.fma(quarter, -1.5703125, angle)
    r = tl.fma(quarter, -4.837512969970703e-4, r)
    r = tl.fma(quarter, -7.549789948768648e-8, r)
    z = r * r
    s = tl.fma(tl.fma(z, -1.9515295891e-4, 8.3321608736e-3), z, -1.6666654611e-1)
    s = tl.fma(s * z, r, r)
    c = tl.fma(tl.fma(z, 2.443315711809948e-5, -1.388731625493765e-3), z, 4.166664568298827e-2)
    c = tl.fma(c * z, z, tl.fma(z, -0.5, 1.0))
    q = quarter.to(tl.int32)
    swap = (q & 1) != 0
    even, odd = tl.where(swap, c, s), tl.where(swap, s, c)
    return tl.where((q & 2) != 0, -even, even), tl.where(((q + 1) & 2) != 0, -odd, odd)


@triton.jit(do_not_specialize=["seed", "step_low", "step_high", "first_model", "counters"])
def draw_kernel(
    drawn,  # [models, counters, 4]
    counters: tl.int64,
    seed: tl.uint64,
    step_low: tl.uint32,
    step_high: tl.uint32,
    first_model: tl.int64,
    GAUSSIAN: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Probes of one model, four numbers a counter."""
    model = tl.program_id(1).to(tl.int64)
    counter = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    sample = counter * 0 + first_model + model
    if GAUSSIAN:
        z0, z1, z2, z3 = site_normals(counter, sample, step_low, step_high, seed)
    else:
        x, y, z, w = site_words(counter, sample, step_low, step_high, seed)
        z0, z1 = 1.0 - 2.0 * (x >> 31).to(tl.float32), 1.0 - 2.0 * (y >> 31).to(tl.float32)
        z2, z3 = 1.0 - 2.0 * (z >> 31).to(tl.float32), 1.0 - 2.0 * (w >> 31).to(tl.float32)
    to, inside = drawn + (model * counters + counter) * 4, counter < counters
    tl.store(to, z0, mask=inside)
    tl.store(to + 1, z1, mask=inside)
    tl.store(to + 2, z2, mask=inside)
    tl.store(to + 3, z3, mask=inside)


@triton.jit(do_not_specialize=["rows"])
def encode_kernel(
    points,  # [models or 1, rows, dimension]
    drawn,  # [models, rows, directions, padded], or None: the directions are the axes
    encoded,  # [models, 1 + directions, rows, inputs]
    rows: tl.int64,
    skipped: tl.int64,  # from one model's points to the next
    dimension: tl.int32,
    padded: tl.int32,
    inputs: tl.int32,
    directions: tl.int32,
    BLOCK: tl.constexpr,
):
    """h_0 = [x, sin x, cos x, sin 2x, ...] and its derivative along every direction."""
    model = tl.program_id(1).to(tl.int64)
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    row, feature = place // inputs, (place % inputs).to(tl.int32)
    coordinate, group, inside = feature % dimension, feature // dimension, row < rows
    x = tl.load(points + model * skipped + row * dimension + coordinate, mask=inside, other=0.0)
    frequency = (1 << (tl.maximum(group - 1, 0) // 2)).to(tl.float32)
    sine, cosine = sine_cosine(frequency * x)
    odd = group % 2 == 1
    value = tl.where(group == 0, x, tl.where(odd, sine, cosine))
    slope = tl.where(group == 0, 1.0, frequency * tl.where(odd, cosine, -sine))
    to = encoded + model * (1 + directions) * rows * inputs + place
    tl.store(to, value, mask=inside)
    for k in range(directions):
        to += rows * inputs
        if drawn is None:
            along = (coordinate == k).to(tl.float32)
        else:
            at = ((model * rows + row) * directions + k) * padded + coordinate
            along = tl.load(drawn + at, mask=inside, other=0.0)
        tl.store(to, slope * along, mask=inside)


@triton.jit
def silu(z):
    """a(z), a'(z) and a''(z)."""
    s = 1.0 / (1.0 + tl.exp(-z))
    return z * s, s * tl.fma(z, 1.0 - s, 1.0), s * (1.0 - s) * tl.fma(z, tl.fma(s, -2.0, 1.0), 2.0)


@triton.jit(do_not_specialize=["numbers"])
def activate_kernel(
    states,  # [models, 1 + directions, numbers]: z and Y
    results,  # the same: h and T
    numbers: tl.int64,
    directions: tl.int32,
    BLOCK: tl.constexpr,
):
    """h = a(z), T = a'(z) Y."""
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside, at = place < numbers, tl.program_id(1).to(tl.int64) * (1 + directions) * numbers + place
    value, slope, _ = silu(tl.load(states + at, mask=inside, other=0.0))
    tl.store(results + at, value, mask=inside)
    for _ in range(directions):
        at += numbers
        tl.store(results + at, slope * tl.load(states + at, mask=inside, other=0.0), mask=inside)


@triton.jit(do_not_specialize=["numbers"])
def deactivate_kernel(
    states,  # [models, 1 + directions, numbers]: z and Y
    adjoints,  # the same: h' and T', replaced by z' and Y'
    numbers: tl.int64,
    directions: tl.int32,
    BLOCK: tl.constexpr,
):
    """z' = a'(z) h' + a''(z) sum of Y T', Y' = a'(z) T'."""
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside, first = place < numbers, tl.program_id(1).to(tl.int64) * (1 + directions) * numbers + place
    _, slope, bend = silu(tl.load(states + first, mask=inside, other=0.0))
    total, at = slope * tl.load(adjoints + first, mask=inside, other=0.0), first
    for _ in range(directions):
        at += numbers
        pushed = tl.load(states + at, mask=inside, other=0.0)
        adjoint = tl.load(adjoints + at, mask=inside, other=0.0)
        total = tl.fma(bend * pushed, adjoint, total)
        tl.store(adjoints + at, slope * adjoint, mask=inside)
    tl.store(adjoints + first, total, mask=inside)


@triton.jit(do_not_specialize=["rows"])
def read_kernel(
    outputs,  # [models, 1 + directions, rows, dimension]: v and J z
    drawn,  # [models, rows, directions, padded], or None
    divergence,  # [models, rows]
    strain,  # [models, rows], or None
    rows: tl.int64,
    dimension: tl.int32,
    padded: tl.int32,
    directions: tl.int32,
    SPARED: tl.constexpr,  # whether the strain leaves out the diagonal
    BLOCK: tl.constexpr,
):
    """Trace of J, or the mean of z^T J z; and |E|^2."""
    model = tl.program_id(1).to(tl.int64)
    row = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside, plane = row < rows, rows * dimension
    jacobian = outputs + (model * (1 + directions) + 1) * plane + row * dimension  # [directions, dimension] of a row
    trace, total = tl.zeros((BLOCK,), tl.float32), tl.zeros((BLOCK,), tl.float32)
    for k in range(directions):
        for c in range(dimension):
            if drawn is not None:
                z = tl.load(drawn + ((model * rows + row) * directions + k) * padded + c, mask=inside, other=0.0)
                trace = tl.fma(z, tl.load(jacobian + k * plane + c, mask=inside, other=0.0), trace)
            else:
                one = tl.load(jacobian + k * plane + c, mask=inside, other=0.0)
                if k == c:
                    trace += one
                if strain is not None:
                    symmetric = 0.5 * (one + tl.load(jacobian + c * plane + k, mask=inside, other=0.0))
                    total = tl.fma(symmetric, tl.where(SPARED & (k == c), 0.0, symmetric), total)
    if drawn is not None:
        trace /= directions
    tl.store(divergence + model * rows + row, trace, mask=inside)
    if strain is not None:
        tl.store(strain + model * rows + row, total, mask=inside)


@triton.jit(do_not_specialize=["rows"])
def seed_kernel(
    outputs,  # [models, 1 + directions, rows, dimension]: v and J z, replaced by the derivatives with respect to them
    of_velocity,  # [models, rows, dimension]
    of_divergence,  # [models, rows]
    of_strain,  # [models, rows], or None
    drawn,  # [models, rows, directions, padded], or None
    rows: tl.int64,
    dimension: tl.int32,
    padded: tl.int32,
    directions: tl.int32,
    SPARED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """What a loss wants of v, of the divergence and of the strain, as derivatives with respect to v and J z."""
    model = tl.program_id(1).to(tl.int64)
    row = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside, plane = row < rows, rows * dimension
    first = outputs + model * (1 + directions) * plane + row * dimension
    jacobian = first + plane
    wanted = tl.load(of_divergence + model * rows + row, mask=inside, other=0.0)
    strained = wanted * 0
    if of_strain is not None:
        strained = tl.load(of_strain + model * rows + row, mask=inside, other=0.0)
    for c in range(dimension):
        velocity = tl.load(of_velocity + (model * rows + row) * dimension + c, mask=inside, other=0.0)
        tl.store(first + c, velocity, mask=inside)
    for k in range(directions):
        if drawn is not None:
            for c in range(dimension):
                z = tl.load(drawn + ((model * rows + row) * directions + k) * padded + c, mask=inside, other=0.0)
                tl.store(jacobian + k * plane + c, wanted * z / directions, mask=inside)
        else:
            for c in range(k + 1):  # both of a pair at once: they need each other
                one = tl.load(jacobian + k * plane + c, mask=inside, other=0.0)
                other = tl.load(jacobian + c * plane + k, mask=inside, other=0.0)
                pair = strained * tl.where(SPARED & (k == c), 0.0, one + other)
                pair += tl.where(k == c, wanted, 0.0)
                tl.store(jacobian + k * plane + c, pair, mask=inside)
                tl.store(jacobian + c * plane + k, pair, mask=inside)


def product(
    columns: Tensor,  # [models, 1 + directions, rows, into]
    weights: Tensor,  # [models, into, out]
    bias: Tensor | None = None,  # [models, out], for the state alone
) -> Tensor:
    """[models, 1 + directions, rows, out]"""
    result = (columns.flatten(1, 2) @ weights).unflatten(1, columns.shape[1:3])
    if bias is not None:
        result[:, 0] += bias[:, None]
    return result


class _Network:
    """A batch of networks at some points: its sizes, its layers and the launches of its kernels."""

    def __init__(self, points, parameters, hidden, frequencies, output_bias, method, probes, law, seed, step, model):
        self.points, self.spared = points, law == "rademacher"
        self.models, self.rows, self.dimension = len(parameters), points.shape[-2], points.shape[-1]
        self.inputs, self.padded = self.dimension * (1 + 2 * frequencies), 4 * triton.cdiv(self.dimension, 4)
        self.directions = probes if method == "probes" else self.dimension
        self.block = _INTERPRETER_BLOCK if points.is_cpu else _BLOCK
        self.layers = list(self.views(parameters, hidden, output_bias))
        self.drawn = None
        if method == "probes":
            counters = self.rows * probes * self.padded // 4
            self.drawn = points.new_empty((self.models, self.rows, probes, self.padded))
            step_low, step_high = step & 0xFFFFFFFF, _PROBES << 24 | step >> 32
            self.launch(
                draw_kernel, counters, self.drawn, counters, seed, step_low, step_high, model,
                GAUSSIAN=law == "gaussian",
            )  # fmt: skip

    def views(self, parameters: Tensor, hidden: list[int], output_bias: bool) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Weights [models, out, into] and bias [models, out] of every layer."""
        at, into = 0, self.inputs
        for index, out in enumerate((*hidden, self.dimension)):
            weights = parameters[:, at : at + out * into].unflatten(1, (out, into))
            at += out * into
            biased = output_bias or index < len(hidden)
            yield weights, parameters[:, at : at + out] if biased else None
            at, into = at + out * biased, out

    def launch(self, kernel: triton.JITFunction, count: int, *arguments, **constants) -> None:
        grid = (triton.cdiv(count, self.block), self.models)
        with torch.cuda.device_of(self.points):
            kernel[grid](*arguments, **constants, BLOCK=self.block, enable_fp_fusion=False)

    def empty(self, width: int) -> Tensor:
        return self.points.new_empty((self.models, 1 + self.directions, self.rows, width))

    def encoded(self) -> Tensor:
        result, skipped = self.empty(self.inputs), self.rows * self.dimension if self.points.ndim == 3 else 0
        self.launch(
            encode_kernel, self.rows * self.inputs, self.points, self.drawn, result, self.rows, skipped, self.dimension,
            self.padded, self.inputs, self.directions,
        )  # fmt: skip
        return result

    def activated(self, states: Tensor) -> Tensor:
        result, numbers = torch.empty_like(states), states[0, 0].numel()
        self.launch(activate_kernel, numbers, states, result, numbers, self.directions)
        return result

    def forward(self) -> tuple[list[Tensor], Tensor, Tensor]:
        """z and Y of every hidden layer, h and T of the last one, and the output (v, J z)."""
        states, current = [], self.encoded()
        for weights, bias in self.layers[:-1]:
            states.append(product(current, weights.mT, bias))
            current = self.activated(states[-1])
        weights, bias = self.layers[-1]
        return states, current, product(current, weights.mT, bias)

    def backward(self, states: list[Tensor], last: Tensor, seeds: Tensor, gradient: list) -> None:
        """Fill the layers `gradient` from the derivatives with respect to the output."""
        for index in range(len(self.layers) - 1, -1, -1):
            weights, _ = self.layers[index]
            into, bias = gradient[index]
            into.copy_(seeds.flatten(1, 2).mT @ last.flatten(1, 2))
            if bias is not None:
                bias.copy_(seeds[:, 0].sum(1))
            if index:
                seeds = product(seeds, weights)
                numbers = seeds[0, 0].numel()
                self.launch(deactivate_kernel, numbers, states[index - 1], seeds, numbers, self.directions)
                last = self.activated(states[index - 2]) if index > 1 else self.encoded()


def divergence(
    points: Tensor,  # [rows, dimension] or [models, rows, dimension], float32, contiguous
    parameters: Tensor,  # [models, size]
    hidden: list[int],
    frequencies: int,
    output_bias: bool,
    method: str,  # "tangents" or "probes"
    probes: int,
    law: str,
    seed: int,
    step: int,
    first_model: int,
    velocity: Tensor,  # [models, rows, dimension]: filled, like the two that follow
    divergence: Tensor,  # [models, rows]
    strain: Tensor | None,  # [models, rows]
) -> None:
    """Fill velocity, divergence and strain."""
    network = _Network(
        points, parameters, hidden, frequencies, output_bias, method, probes, law, seed, step, first_model
    )
    _, _, output = network.forward()
    velocity.copy_(output[:, 0])
    sizes = network.rows, network.dimension, network.padded, network.directions
    network.launch(read_kernel, network.rows, output, network.drawn, divergence, strain, *sizes, SPARED=network.spared)


def divergence_gradient(
    points: Tensor,
    parameters: Tensor,
    hidden: list[int],
    frequencies: int,
    output_bias: bool,
    method: str,
    probes: int,
    law: str,
    seed: int,
    step: int,
    first_model: int,
    of_velocity: Tensor,  # derivatives of a loss with respect to velocity, divergence and strain
    of_divergence: Tensor,
    of_strain: Tensor | None,
    gradient: Tensor,  # [models, size]: filled
) -> None:
    """Fill the derivatives with respect to the parameters."""
    network = _Network(
        points, parameters, hidden, frequencies, output_bias, method, probes, law, seed, step, first_model
    )
    states, last, output = network.forward()
    sizes = network.rows, network.dimension, network.padded, network.directions
    upstream = of_velocity, of_divergence, of_strain
    network.launch(seed_kernel, network.rows, output, *upstream, network.drawn, *sizes, SPARED=network.spared)
    network.backward(states, last, output, list(network.views(gradient, hidden, output_bias)))
