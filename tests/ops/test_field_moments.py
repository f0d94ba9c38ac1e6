import math

import pytest
import torch

from eqflow import ops
from eqflow.ops.gray_scott import laplacian

GRAY_SCOTT_TERMS = (
    *map(ops.FieldTerm, ops.monomials_up_to(2, 3, lowest=0)),
    ops.FieldTerm((1, 0), "laplacian"),
    ops.FieldTerm((0, 1), "laplacian"),
)
MORE_TERMS = (
    ops.FieldTerm((2, 0), "laplacian", factor=(0, 1)),
    ops.FieldTerm((0, 1), "bilaplacian"),
    ops.FieldTerm((1, 1), "squared-gradient"),
    ops.FieldTerm((1, 0), "x-derivative", factor=(1, 0)),
    ops.FieldTerm((0, 2), "y-derivative"),
)
FUNCTIONALS = ops.Functionals.up_to(2, 6, 3)


def pictures(batch=2, channels=2, height=12, width=10, seed=0):
    """Smooth pictures with some noise, of numbers around one half, float32."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(batch, channels, height, width, generator=generator)
    for _ in range(6):
        noise = noise + 0.1 * laplacian(noise)
    return 0.5 + 0.3 * noise


def monomial(x, exponents):  # x [batch, channels, height, width]
    return math.prod((x[:, c] ** power for c, power in enumerate(exponents)), start=torch.ones_like(x[:, 0]))


def term_field(x, term, stencil, spacing):
    m, axis = monomial(x, term.exponents), {"x-derivative": -1, "y-derivative": -2}

    def slope(axis):
        return (m.roll(-1, axis) - m.roll(1, axis)) / (2 * spacing)

    def lap(field):
        return laplacian(field, stencil) / spacing**2

    field = {
        "value": lambda: m,
        "laplacian": lambda: lap(m),
        "bilaplacian": lambda: lap(lap(m)),
        "squared-gradient": lambda: slope(-1) ** 2 + slope(-2) ** 2,
    }.get(term.operator, lambda: slope(axis[term.operator]))()
    return field * monomial(x, term.factor or (0,) * x.shape[1])


def local_products(state, at, functionals, terms, stencil="5-point", spacing=1.0):
    """(delta phi_j / delta x_c) b_k at every pixel, the derivative by automatic differentiation of the functional."""
    state, at = state.double(), at.double().requires_grad_()
    pixels = at.shape[2] * at.shape[3]
    values = [monomial(at, m).sum() / pixels for m in functionals.monomials]
    for g, h in functionals.pairs:
        values.append((monomial(at, g) * laplacian(monomial(at, h), stencil)).sum() / (pixels * spacing**2))
    gradients = torch.stack([torch.autograd.grad(v, at, retain_graph=True)[0] * pixels for v in values], 1)
    library = torch.stack([term_field(state, term, stencil, spacing) for term in terms], 1)
    return torch.einsum("bfchw,bkhw->bfckhw", gradients, library)


def require_moments(moments, products, tolerance=1e-6):
    exact, scale = products.mean((-2, -1)), products.abs().mean((-2, -1))
    assert moments.shape == exact.shape and moments.dtype == torch.float64
    assert ((moments - exact).abs() <= tolerance * scale).all()


SHAPES = [(2, 3, 3), (1, 5, 4), (3, 8, 64), (2, 17, 65), (1, 31, 130)]  # batch, height, width


@pytest.mark.parametrize("batch, height, width", SHAPES)
@pytest.mark.parametrize("stencil", ["5-point", "9-point"])
def test_every_instruction_set_gives_the_derivatives_of_the_functionals(isa, batch, height, width, stencil):
    x = pictures(batch, 2, height, width)
    y = x + 0.05 * pictures(batch, 2, height, width, seed=1)
    functionals, terms = ops.Functionals.up_to(2, 4, 2), GRAY_SCOTT_TERMS + MORE_TERMS
    for at in (x, y):
        products = local_products(x, at, functionals, terms, stencil, 0.7)
        options = dict(at=None if at is x else at, stencil=stencil, spacing=0.7)
        require_moments(ops.field_moments(x, functionals, terms, backend="native", **options), products)
        reference = ops.field_moments(x, functionals, terms, backend="reference", **options)
        require_moments(reference, products, 1e-12)


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_other_numbers_of_channels(isa, channels):
    x = pictures(2, channels, 9, 21)
    functionals = ops.Functionals.up_to(channels, 3 if channels < 5 else 2, 1)
    terms = (*map(ops.FieldTerm, ops.monomials_up_to(channels, 2)), ops.FieldTerm((2,) * channels, "laplacian"))
    require_moments(ops.field_moments(x, functionals, terms), local_products(x, x, functionals, terms))


@pytest.mark.parametrize("terms, cut", [(MORE_TERMS, 2), (GRAY_SCOTT_TERMS, 1)])
@pytest.mark.parametrize("backend", ["native", "reference"])
def test_a_crop_is_averaged_where_its_stencils_are_inside(terms, cut, backend):
    whole = pictures(2, 2, 40, 90)
    crop = whole[:, :, 3:30, 5:77]
    moments = ops.field_moments(crop, FUNCTIONALS, terms, periodic=False, backend=backend)
    inside = local_products(whole, whole, FUNCTIONALS, terms)[..., 3 + cut : 30 - cut, 5 + cut : 77 - cut]
    require_moments(moments, inside)


def test_a_crop_without_stencils_keeps_its_edges():
    x = pictures(1, 2, 1, 6)
    functionals, terms = ops.Functionals.up_to(2, 2), (ops.FieldTerm((1, 0)),)
    moments = ops.field_moments(x, functionals, terms, periodic=False)
    assert moments[0, 0, 0, 0].item() == pytest.approx(x[0, 0].double().mean().item(), rel=1e-7)  # 1 times u


def test_many_pixels_add_up_as_in_float64(isa):
    x, functionals = pictures(1, 2, 128, 128), ops.Functionals.up_to(2, 3, 1)
    moments = ops.field_moments(x, functionals, GRAY_SCOTT_TERMS)
    require_moments(moments, local_products(x, x, functionals, GRAY_SCOTT_TERMS), 1e-7)


def test_plane_waves(isa):
    size, waves, high, spacing = 48, 3, 0.8, 0.5
    angle = 2 * math.pi * waves / size
    phase = angle * torch.arange(size, dtype=torch.float64)
    x = torch.stack([phase.cos(), phase.sin()]).mul(high).float()[:, None].expand(2, size, size)[None]
    eigenvalue = (2 * math.cos(angle) - 2) / spacing**2
    slope = math.sin(angle) / spacing
    functionals = ops.Functionals(monomials=((1, 0), (2, 0), (1, 1)), pairs=(((1, 0), (1, 0)),))
    operators = ("value", "laplacian", "bilaplacian", "squared-gradient", "x-derivative", "y-derivative")
    terms = tuple(ops.FieldTerm((1, 0), operator) for operator in operators)
    of_u = ops.field_moments(x, functionals, terms, spacing=spacing)[0, :, 0]
    half = high**2 / 2
    expected = torch.tensor(
        [
            [0, 0, 0, half * slope**2, 0, 0],  # delta = 1
            [2 * half, 2 * half * eigenvalue, 2 * half * eigenvalue**2, 0, 0, 0],  # 2 u
            [0, 0, 0, 0, -half * slope, 0],  # v
            [2 * half * eigenvalue, 2 * half * eigenvalue**2, 2 * half * eigenvalue**3, 0, 0, 0],  # 2 Lap u
        ],
        dtype=torch.float64,
    )
    torch.testing.assert_close(of_u, expected, rtol=1e-6, atol=1e-6)
    turned = ops.field_moments(x.mT.contiguous(), functionals, terms, spacing=spacing)[0, :, 0]
    swapped = [0, 1, 2, 3, 5, 4]
    torch.testing.assert_close(turned[:, swapped], of_u, rtol=1e-6, atol=1e-7)


def test_a_constant_picture_has_no_derivatives_and_its_values_are_monomials(isa):
    u, v = 0.75, 1.1
    x = torch.tensor([u, v])[None, :, None, None].expand(1, 2, 24, 24)
    moments = ops.field_moments(x, FUNCTIONALS, GRAY_SCOTT_TERMS + MORE_TERMS)[0]
    v = float(torch.tensor(v))
    assert moments[len(FUNCTIONALS.monomials) :].eq(0).all()
    assert moments[..., len(GRAY_SCOTT_TERMS) - 2 :].eq(0).all()
    for (a, b), moment in zip(FUNCTIONALS.monomials, moments[:, :, :10], strict=False):
        of_terms = torch.tensor([u**i * v**j for i, j in ops.monomials_up_to(2, 3, lowest=0)], dtype=torch.float64)
        torch.testing.assert_close(moment[0], a * u ** max(a - 1, 0) * v**b * of_terms, rtol=5e-7, atol=0)
        torch.testing.assert_close(moment[1], b * u**a * v ** max(b - 1, 0) * of_terms, rtol=5e-7, atol=0)


@pytest.mark.parametrize("backend, tolerance", [("reference", 1e-13), ("native", 1e-7)])
def test_a_rotating_wave_keeps_every_functional(backend, tolerance):
    """u' = -v, v' = u turns the phase of a wave (cos, sin), which no mean over its period notices."""
    phase = 2 * math.pi * 2 * torch.arange(64, dtype=torch.float64) / 64
    x = torch.stack([phase.cos(), phase.sin()])[:, None].expand(2, 8, 64)[None]
    x = x if backend == "reference" else x.float()
    moments = ops.field_moments(x, FUNCTIONALS, (ops.FieldTerm((1, 0)), ops.FieldTerm((0, 1))), backend=backend)[0]
    rates = moments[:, 1, 0] - moments[:, 0, 1]
    assert rates.abs().max() <= tolerance and moments.abs().max() > 0.5
    assert (moments[:, 1, 0] + moments[:, 0, 1]).abs().max() > 0.1  # the wrong sign does not


def test_a_linear_system_keeps_the_modes_that_it_does_not_damp():
    """u' = Lap u - lambda u vanishes on the modes whose eigenvalue is lambda, in any mixture."""
    angle = 2 * math.pi * 3 / 24 * torch.arange(24)
    x = (0.3 * angle.cos()[:, None] + angle.sin()[None, :])[None, None]
    eigenvalue = 2 * math.cos(2 * math.pi * 3 / 24) - 2
    functionals, terms = ops.Functionals.up_to(1, 5, 3), (ops.FieldTerm((1,), "laplacian"), ops.FieldTerm((1,)))
    moments = ops.field_moments(x, functionals, terms)[0, :, 0]
    assert (moments[:, 0] - eigenvalue * moments[:, 1]).abs().max() < 1e-6 < 0.1 < moments.abs().max()


def test_stationary_gray_scott_pictures_obey_their_equation():
    """A step x + f(x) changes phi by its moments at the midpoint, up to the third order of the step."""
    x = pictures(4, 2, 24, 24)
    feed, kill, dt, errors = 0.03, 0.06, 1.0, []
    theta = torch.zeros(2, 12, dtype=torch.float64)
    names = {term: k for k, term in enumerate(GRAY_SCOTT_TERMS)}
    for c, sign, linear in ((0, -1, -feed), (1, 1, -feed - kill)):
        own = (1, 0) if c == 0 else (0, 1)
        theta[c, names[ops.FieldTerm((1, 2))]] = sign
        theta[c, names[ops.FieldTerm(own)]] = linear
        theta[c, names[ops.FieldTerm(own, "laplacian")]] = (0.16, 0.08)[c]
    theta[0, names[ops.FieldTerm((0, 0))]] = feed
    functionals = ops.Functionals.up_to(2, 4, 2)
    for dt in (0.5, 0.25):
        start = x.double()
        end = ops.gray_scott(start, 1, feed=feed, kill=kill, dt=dt, backend="reference")
        moments = ops.field_moments(start, functionals, GRAY_SCOTT_TERMS, at=(start + end) / 2)
        rate = torch.einsum("bfck,ck->bf", moments, theta) * dt

        def values(x):
            pairs = [(monomial(x, g) * laplacian(monomial(x, h))).mean((1, 2)) for g, h in functionals.pairs]
            return torch.stack([monomial(x, m).mean((1, 2)) for m in functionals.monomials] + pairs, 1)

        errors.append((values(end) - values(start) - rate).norm())
    assert errors[0] / errors[1] == pytest.approx(8, rel=0.1)


def test_moments_scale_with_the_channels_far_beyond_float32():
    x = pictures(2, 2, 16, 16)
    moments = ops.field_moments(x, FUNCTIONALS, GRAY_SCOTT_TERMS)
    units = torch.tensor([2.0**30, 2.0**-40])
    scaled = ops.field_moments(x * units[:, None, None], FUNCTIONALS, GRAY_SCOTT_TERMS)
    powers = [m for m in FUNCTIONALS.monomials] + [
        tuple(map(sum, zip(*pair, strict=True))) for pair in FUNCTIONALS.pairs
    ]
    of_functionals = (torch.tensor(powers).double() @ units.double().log2()).exp2()[:, None] / units
    of_terms = (torch.tensor([t.exponents for t in GRAY_SCOTT_TERMS]).double() @ units.double().log2()).exp2()
    assert torch.equal(scaled, moments * of_functionals[..., None] * of_terms)


def test_bits_do_not_depend_on_threads_or_split(threads):
    x = pictures(7, 2, 20, 70)
    threads(1)
    whole = ops.field_moments(x, FUNCTIONALS, GRAY_SCOTT_TERMS)
    for count in (2, 3):
        threads(count)
        parts = [ops.field_moments(part, FUNCTIONALS, GRAY_SCOTT_TERMS) for part in x.split(3)]
        assert torch.equal(torch.cat(parts), whole)


def test_no_pictures_give_no_moments():
    assert ops.field_moments(pictures(1)[:0], FUNCTIONALS, GRAY_SCOTT_TERMS).shape == (0, 72, 2, 12)


def test_a_view_is_read_as_it_is():
    x = pictures(2, 2, 12, 20)
    view = x.transpose(2, 3)
    expected = ops.field_moments(view.contiguous(), FUNCTIONALS, GRAY_SCOTT_TERMS)
    assert torch.equal(ops.field_moments(view, FUNCTIONALS, GRAY_SCOTT_TERMS, at=view), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_operator_is_registered_properly(dtype):
    x = pictures(2, 1, 4, 5).to(dtype)
    numbers = ([1, 2], [1, 1], [1, 1], [0, 1], [0, 1])  # see _numbers: u, u^2, u Lap u; u, u Lap u
    backend = "native" if dtype == torch.float32 else "reference"
    for state in (x, x.mT.contiguous().mT):
        for at in (None, x + 1):
            arguments = (state, at, *numbers, "5-point", 1.0, True, backend)
            torch.library.opcheck(torch.ops.eqflow.field_moments.default, arguments)


x, one_term = torch.zeros(1, 2, 8, 8), (ops.FieldTerm((1, 0)),)


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        (dict(state=[[0.0]]), TypeError, "expected state as a torch.Tensor, got list"),
        (dict(state=x[0]), ValueError, r"expected state \[batch, channels, height, width\], got \[2, 8, 8\]"),
        (dict(state=x.half()), TypeError, r"float32 or float64 state, got torch\.float16: use state\.float\(\)"),
        (dict(state=x.double(), backend="native"), TypeError, "use backend='reference'"),
        (dict(state=x[:, :1]), ValueError, "state has 1 channels, but functionals is made for 2"),
        (dict(terms=(ops.FieldTerm((1,)),)), ValueError, "state has 2 channels, but FieldTerm.* is made for 1"),
        (dict(terms=()), ValueError, "at least one term, got none"),
        (dict(terms=one_term * 2), ValueError, "every term once, got FieldTerm.* twice"),
        (dict(terms=((1, 0),)), TypeError, r"tuple of ops\.FieldTerm, got tuple among them"),
        (dict(functionals=((1, 0),)), TypeError, r"expected functionals as ops\.Functionals, got tuple"),
        (dict(stencil="7-point"), ValueError, "expected stencil '5-point' or '9-point', got '7-point'"),
        (dict(spacing=0.0), ValueError, r"expected a spacing above 0.*got 0\.0"),
        (dict(at=x[:, :, :4]), ValueError, r"expected `at` like state.*got \[1, 2, 4, 8\]"),
        (dict(at=x.double()), ValueError, r"expected `at` like state.*got .* of torch\.float64"),
        (dict(state=x[..., :2]), ValueError, "height and width from 3 up for a periodic grid, got 8 x 2"),
        (dict(state=x[..., :2], periodic=False), ValueError, "from 3 up for a crop whose stencils reach 1.*got 8 x 2"),
        (dict(state=torch.full_like(x, math.nan)), ValueError, "finite pictures, but picture 0 has NaN"),
        (dict(at=torch.full_like(x, math.inf)), ValueError, "finite pictures, but picture 0 has NaN"),
        (dict(state=x.clone().requires_grad_()), NotImplementedError, r"no derivative: pass state\.detach\(\)"),
        (dict(at=x.clone().requires_grad_()), NotImplementedError, r"no derivative: pass at\.detach\(\)"),
        (dict(backend="cuda"), ops.BackendError, "expected backend 'auto'"),
    ],
)
def test_wrong_arguments_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        ops.field_moments(**(dict(state=x, functionals=ops.Functionals.up_to(2, 2, 1), terms=one_term) | arguments))


@pytest.mark.gpu
@pytest.mark.parametrize("backend", ["native", "triton"])
@pytest.mark.parametrize("batch, height, width", SHAPES)
def test_gpu_gives_the_derivatives_of_the_functionals(backend, batch, height, width):
    x = pictures(batch, 2, height, width)
    terms = GRAY_SCOTT_TERMS + MORE_TERMS
    moments = ops.field_moments(x.cuda(), FUNCTIONALS, terms, backend=backend)
    require_moments(moments.cpu(), local_products(x, x, FUNCTIONALS, terms))
