"""The moments of still pictures from which their equation follows, in one pass over the pixels.

For stationary pictures x with x' = sum over k of theta_k b_k(x), every functional phi of a picture keeps its mean:
    0 = E[d phi / dt] = sum over c, k of theta_ck E[mean over pixels of (delta phi / delta x_c) b_k]
delta phi / delta x_c is d_c m for phi = mean(m), and (d_c g) Lap h + (d_c h) Lap g for phi = mean(g Lap h).
"""

from __future__ import annotations

import functools
import itertools
import math

import torch
from torch import Tensor
from torch.autograd import forward_ad

from eqflow.ops import _backend, _moment_plan
from eqflow.ops.field_terms import OPERATORS, Exponents, FieldTerm, Functionals
from eqflow.ops.gray_scott import STENCILS, laplacian

_WORKSPACE = 2**26  # floats of scratch memory of a GPU


def _monomial(picture: Tensor, exponents: Exponents) -> Tensor:
    return math.prod((picture[c] ** power for c, power in enumerate(exponents)), start=torch.ones_like(picture[0]))


def _derivative(picture: Tensor, exponents: Exponents, channel: int) -> Tensor:
    """Of a monomial with respect to a channel."""
    power = exponents[channel]
    if power == 0:
        return torch.zeros_like(picture[0])
    lower = tuple(e - (c == channel) for c, e in enumerate(exponents))
    return power * _monomial(picture, lower)


def _operate(field: Tensor, operator: str, stencil: str, spacing: float) -> Tensor:
    """What `operator` makes of a field on a periodic grid."""

    def lap(field: Tensor) -> Tensor:
        return laplacian(field, stencil) / spacing**2

    def slope(axis: int) -> Tensor:
        return (field.roll(-1, axis) - field.roll(1, axis)) / (2 * spacing)

    match operator:
        case "value":
            return field
        case "laplacian":
            return lap(field)
        case "bilaplacian":
            return lap(lap(field))
        case "squared-gradient":
            return slope(-1).square() + slope(-2).square()
        case _:
            return slope(-1 if operator == "x-derivative" else -2)


def reach(functionals: Functionals, terms: tuple[FieldTerm, ...]) -> int:
    """How far the stencils reach beyond a pixel, which is the margin that crops lose."""
    operators = {term.operator for term in terms} | ({"laplacian"} if functionals.pairs else set())
    return 2 if "bilaplacian" in operators else int(operators != {"value"})


def reference(
    state: Tensor,
    at: Tensor,
    functionals: Functionals,
    terms: tuple[FieldTerm, ...],
    stencil: str,
    spacing: float,
    periodic: bool,
) -> Tensor:
    """The specification: gradients of the functionals, terms, and the mean of their products, in float64."""
    cut = 0 if periodic else reach(functionals, terms)
    inside = (..., slice(cut, state.shape[2] - cut), slice(cut, state.shape[3] - cut))
    channels, moments = range(functionals.channels), []
    for x, y in zip(state.double(), at.double(), strict=True):
        library = []
        for term in terms:
            field = _operate(_monomial(x, term.exponents), term.operator, stencil, spacing)
            library.append(field if term.factor is None else _monomial(x, term.factor) * field)
        gradients = [torch.stack([_derivative(y, m, c) for c in channels]) for m in functionals.monomials]
        for g, h in functionals.pairs:
            lap_g, lap_h = (_operate(_monomial(y, m), "laplacian", stencil, spacing) for m in (g, h))
            gradients.append(
                torch.stack([_derivative(y, g, c) * lap_h + _derivative(y, h, c) * lap_g for c in channels])
            )
        b, gradient = torch.stack(library)[inside], torch.stack(gradients)[inside]
        moments.append(torch.einsum("fchw,khw->fck", gradient, b) / b[0].numel())
    return torch.stack(moments)


def _powers_of_two(exponents: Tensor, powers: Tensor) -> Tensor:
    """[batch, products, 1]: the unit of each product, for channels in units of 2^exponent."""
    return torch.exp2(exponents.double() @ powers.T)[..., None]


def _largest(pictures: Tensor) -> Tensor:
    """The largest magnitude in each channel, [batch, channels]; NaN where there is one."""
    return torch.maximum(pictures.amax((2, 3)), -pictures.amin((2, 3)))


def _launch(state, at, functionals, terms, stencil, spacing, periodic, backend) -> Tensor:
    """The kernels, which see channels in units of a power of two above their largest number, and a spacing of 1."""
    plan = _moment_plan.on_device(functionals, terms, state.device)
    largest = _largest(state) if at is state else torch.maximum(_largest(state), _largest(at))
    if not state.is_cuda and not largest.isfinite().all():
        picture = int((~largest.isfinite().all(1)).nonzero()[0])
        raise ValueError(f"expected finite pictures, but picture {picture} has NaN or infinite numbers: mend the input")
    exponents = largest.frexp().exponent.clamp(-120, 120)
    units = torch.ldexp(torch.ones_like(largest), -exponents)
    moments = state.new_empty((len(state), len(plan.rows.products), len(plan.columns.products)), dtype=torch.float64)
    margin = 0 if periodic else reach(functionals, terms)
    arguments = (state, at, units, plan.rows[:3], plan.columns[:3], moments)
    if backend == "native":
        native = _backend.native_module()
        options = (margin, stencil == "9-point")
        size = native.field_moments_workspace(state, plan.rows[:3], plan.columns[:3], *options)
        workspace = state.new_empty(min(size * len(state), max(size, _WORKSPACE)))
        native.field_moments(*arguments, workspace, *options, torch.get_num_threads())
    else:
        _backend.triton_kernels("field_moments").field_moments(*arguments, margin, stencil == "9-point")
    (rows, columns), spacing = plan[:2], float(spacing)
    moments *= _powers_of_two(exponents, rows.powers) * spacing ** -rows.order[:, None]
    moments *= (_powers_of_two(exponents, columns.powers) * spacing ** -columns.order[:, None]).mT
    first, second = (moments[:, entry] * weight for entry, weight in zip(plan.entries, plan.weights, strict=True))
    return (first + second).unflatten(1, (functionals.count, functionals.channels))


torch.library.define(
    "eqflow::field_moments",
    "(Tensor state, Tensor? at, int[] monomials, int[] pairs, int[] exponents, int[] factors, int[] operators,"
    " str stencil, float spacing, bool periodic, str backend) -> Tensor",
    tags=[torch.Tag.pt2_compliant_tag],
)


def _numbers(functionals: Functionals, terms: tuple[FieldTerm, ...]) -> tuple[list[int], ...]:
    """Functionals and terms as the lists of numbers that an operator takes; no factor is a factor of exponents 0."""
    none = (0,) * functionals.channels
    flat = itertools.chain.from_iterable
    return (
        list(flat(functionals.monomials)),
        list(flat(flat(functionals.pairs))),
        list(flat(term.exponents for term in terms)),
        list(flat(term.factor or none for term in terms)),
        [OPERATORS.index(term.operator) for term in terms],
    )


@functools.lru_cache(maxsize=64)
def _words(channels: int, monomials, pairs, exponents, factors, operators) -> tuple[Functionals, tuple[FieldTerm, ...]]:
    """The inverse of `_numbers`."""

    def rows(numbers: tuple[int, ...]) -> list[Exponents]:
        return [numbers[i : i + channels] for i in range(0, len(numbers), channels)]

    both = rows(pairs)
    terms = zip(rows(exponents), operators, rows(factors), strict=True)
    return (
        Functionals(tuple(rows(monomials)), tuple(zip(both[::2], both[1::2], strict=True))),
        tuple(FieldTerm(m, OPERATORS[operator], factor) for m, operator, factor in terms),
    )


def _run(state, at, monomials, pairs, exponents, factors, operators, stencil, spacing, periodic, backend):
    backend = _backend.choose(backend, state.device)
    numbers = (tuple(numbers) for numbers in (monomials, pairs, exponents, factors, operators))
    functionals, terms = _words(state.shape[1], *numbers)
    if not len(state):
        return state.new_empty((0, functionals.count, state.shape[1], len(terms)), dtype=torch.float64)
    state = state.contiguous()
    at = state if at is None else at.contiguous()
    arguments = (state, at, functionals, terms, stencil, spacing, periodic)
    return reference(*arguments) if backend == "reference" else _launch(*arguments, backend)


for _device in ("CPU", "CUDA"):
    torch.library.impl("eqflow::field_moments", _device, _run)


@torch.library.register_fake("eqflow::field_moments")
def _(state, at, monomials, pairs, exponents, factors, operators, stencil, spacing, periodic, backend):
    channels = state.shape[1]
    count = len(monomials) // channels + len(pairs) // (2 * channels)
    return state.new_empty((state.shape[0], count, channels, len(operators)), dtype=torch.float64)


def _check(state: Tensor, at: Tensor | None, functionals: Functionals, terms: tuple, stencil: str, spacing) -> None:
    if not isinstance(functionals, Functionals):
        raise TypeError(f"expected functionals as ops.Functionals, got {type(functionals).__name__}")
    wrong = [term for term in terms if not isinstance(term, FieldTerm)]
    if wrong:
        raise TypeError(f"expected terms as a tuple of ops.FieldTerm, got {type(wrong[0]).__name__} among them")
    if not terms:
        raise ValueError("expected at least one term, got none")
    twice = {term for term in terms if terms.count(term) > 1}
    if twice:
        raise ValueError(f"expected every term once, got {next(iter(twice))} twice: leave one out")
    if stencil not in STENCILS:
        raise ValueError(f"expected stencil {' or '.join(map(repr, STENCILS))}, got {stencil!r}")
    if not 0 < spacing < math.inf:
        raise ValueError(f"expected a spacing above 0, the length of a pixel, got {spacing}")
    for name, pictures in {"state": state, "at": at}.items():
        if pictures is None and name == "at":
            continue
        if not isinstance(pictures, Tensor):
            raise TypeError(f"expected {name} as a torch.Tensor, got {type(pictures).__name__}: use torch.as_tensor")
        if pictures.ndim != 4:
            raise ValueError(f"expected {name} [batch, channels, height, width], got {list(pictures.shape)}")
        if pictures.dtype not in (torch.float32, torch.float64):
            raise TypeError(f"expected a float32 or float64 {name}, got {pictures.dtype}: use {name}.float()")
        if pictures.requires_grad or forward_ad.unpack_dual(pictures).tangent is not None:
            raise NotImplementedError(
                f"field_moments has no derivative: pass {name}.detach(), or differentiate the reference"
            )
    if at is not None and (at.shape, at.dtype, at.device) != (state.shape, state.dtype, state.device):
        raise ValueError(
            f"expected `at` like state, {list(state.shape)} of {state.dtype} on {state.device}, "
            f"got {list(at.shape)} of {at.dtype} on {at.device}"
        )
    made_for = {"functionals": functionals.channels} | {str(term): len(term.exponents) for term in terms}
    for name, channels in made_for.items():
        if channels != state.shape[1]:
            raise ValueError(f"state has {state.shape[1]} channels, but {name} is made for {channels}")


def _check_size(height: int, width: int, reach: int, periodic: bool) -> None:
    least = 3 if periodic else 2 * reach + 1
    if min(height, width) < least:
        where = "a periodic grid" if periodic else f"a crop whose stencils reach {reach} beyond a pixel"
        raise ValueError(f"expected height and width from {least} up for {where}, got {height} x {width}")


def field_moments(
    state: Tensor,  # [batch, channels, height, width]
    functionals: Functionals,
    terms: tuple[FieldTerm, ...],
    *,
    at: Tensor | None = None,  # like state
    stencil: str = "5-point",
    spacing: float = 1.0,
    periodic: bool = True,
    backend: str = "auto",
) -> Tensor:
    """Mean over the pixels of every functional derivative times every term, for each picture.

        moment[n, j, c, k] = mean over pixels of (delta phi_j / delta x_c)(at_n) b_k(state_n)

    If x_c' = sum over k of theta_ck b_k(x), the sum of theta_ck moment_jck over c and k is the rate at which phi_j
    changes, and its mean over stationary pictures is zero.

    The kernels evaluate monomials and stencils in float64, round the factors of a moment to float32, add up some
    hundred products in float32 and then in float64: about 1e-8 of the mean of |delta phi / delta x_c| |b_k|, and always
    below 1e-6 of it. The bits do not depend on the number of threads or the split of the batch.

    Args:
        state: pictures at which the terms are evaluated, float32; or float64, which the reference serves.
        functionals: phi_j.
        terms: b_k.
        at: pictures at which the functionals are differentiated, such as the midpoint of a step; None: `state`.
        stencil: of the Laplacians, "5-point" or "9-point", as in `gray_scott`.
        spacing: length of a pixel's edge.
        periodic: the pictures are whole and periodic. False: they are crops, and means are over the pixels that have
            all their stencils inside: without a margin of 1, or 2 with a bilaplacian. Lap is self-adjoint only up to
            the edges then, so for pairs the rate of change holds up to a flux through the edges.
        backend: "auto", "reference", "native" or "triton".

    Returns:
        Moments, float64 [batch, functionals, channels, terms].

    Raises:
        TypeError, ValueError: an argument is wrong.
        BackendError: the backend is not available here.
        NotImplementedError: a derivative was asked for.

    Example:
        >>> phase = torch.arange(16) * (2 * torch.pi / 16)
        >>> wave = phase.cos().expand(1, 1, 16, 16)
        >>> quadratic = Functionals(monomials=((2,),))  # mean(u^2), whose derivative is 2 u
        >>> moments = field_moments(wave, quadratic, (FieldTerm((1,)), FieldTerm((1,), "laplacian")))
        >>> moments[0, 0, 0]  # mean(2 u u) = 1, and Lap u = (2 cos(2 pi / 16) - 2) u
        tensor([ 1.0000, -0.1522], dtype=torch.float64)
    """
    terms = tuple(terms)
    _check(state, at, functionals, terms, stencil, spacing)
    _check_size(*state.shape[2:], reach(functionals, terms), periodic)
    if state.dtype == torch.float64:
        if backend not in ("auto", "reference"):
            raise TypeError(f"expected float32 pictures for backend {backend!r}, got float64: use backend='reference'")
        backend = "reference"
    return torch.ops.eqflow.field_moments.default(
        state, at, *_numbers(functionals, terms), stencil, spacing, periodic, backend
    )
