import math

import pytest
import torch

from eqflow import ops
from eqflow.ops._backend import native_module
from eqflow.ops.gray_scott import STENCILS, _dither, laplacian

WAVE = dict(feed=0.018, kill=0.049)
PAPER = {"life": (0.006, 0.045), "wave": (0.018, 0.049), "spirals": (0.007, 0.028), "maze": (0.029, 0.057)}
SIZES = [(3, 3), (3, 17), (4, 4), (5, 16), (17, 5), (31, 64), (32, 33), (100, 100), (127, 129), (128, 128), (8, 700)]


def start(batch, height, width, seed=0, dtype=torch.float32):
    """Squares of u = 1/2, v = 1/4 on u = 1, v = 0, and a little noise."""
    generator = torch.Generator().manual_seed(seed)
    state = torch.stack([torch.ones(batch, height, width), torch.zeros(batch, height, width)], 1)
    side = max(1, min(height, width) // 6)
    for sample in range(batch):
        for _ in range(5):
            y, x = (int(torch.randint(n, (), generator=generator)) for n in (height, width))
            rows, columns = (torch.arange(side) + y) % height, (torch.arange(side) + x) % width
            state[sample, 0, rows[:, None], columns] = 0.5
            state[sample, 1, rows[:, None], columns] = 0.25
    return (state + 0.02 * torch.rand(state.shape, generator=generator)).to(dtype)


def simulate(state, steps, backend="native", **options):
    return ops.gray_scott(state, steps, backend=backend, **(WAVE | options))


@pytest.mark.parametrize("stencil", STENCILS)
@pytest.mark.parametrize("dt", [1.0, 0.5])
@pytest.mark.parametrize("height, width", SIZES)
def test_every_instruction_set_agrees_with_the_reference(isa, height, width, dt, stencil):
    state = start(2, height, width)
    options = dict(dt=dt, stencil=stencil, feed=torch.tensor([0.018, 0.03]), diffusion_v=torch.tensor([0.08, 0.06]))
    exact = simulate(state.double(), 21, "reference", every=7, **options)
    assert (simulate(state, 21, every=7, **options) - exact).abs().max() < 2e-6
    assert (simulate(state.double(), 21, every=7, **options) - exact).abs().max() < 1e-13


@pytest.mark.parametrize("stencil", STENCILS)
@pytest.mark.parametrize("height, width", [(17, 5), (100, 100), (128, 128), (127, 129), (600, 240)])
def test_bits_do_not_depend_on_instruction_set_threads_or_batch(height, width, stencil, threads):
    module, state = native_module(), start(3, height, width)
    before, results = module.cpu_isa(), []
    for isa in module.cpu_isas():
        module.set_cpu_isa(isa)
        for count in (1, 2, 3):
            threads(count)
            results.append(simulate(state, 27, stencil=stencil, every=9))
        results.append(torch.cat([simulate(sample, 27, stencil=stencil, every=9) for sample in state.split(1)]))
    module.set_cpu_isa(before)
    assert all(torch.equal(result, results[0]) for result in results)


def test_frames_do_not_change_the_trajectory():
    state = start(2, 40, 48)
    whole = simulate(state, 120)
    for every in (1, 3, 8, 60, 120):
        assert torch.equal(simulate(state, 120, every=every)[:, -1], whole)
    assert torch.equal(simulate(state, 120, every=60)[:, 0], simulate(state, 60))


def test_permuted_input_and_zero_steps():
    state = start(2, 20, 24)
    permuted = state.transpose(2, 3).contiguous().transpose(2, 3)
    assert torch.equal(simulate(permuted, 10), simulate(state, 10))
    assert torch.equal(simulate(state, 0), state)
    assert simulate(state[:0], 5).shape == (0, 2, 20, 24)


def test_the_input_is_not_changed():
    state = start(1, 16, 16)
    copy = state.clone()
    simulate(state, 5)
    assert torch.equal(state, copy)


@pytest.mark.parametrize("preset", PAPER)
def test_error_stays_near_that_of_the_plain_update(preset):
    """float32 against float64 after 1,000 steps. The median: a chaotic sample can amplify either error alone."""
    feed, kill = PAPER[preset]
    state = start(16, 64, 64, seed=2)
    exact = simulate(state.double(), 1000, feed=feed, kill=kill)
    rms = {
        backend: (simulate(state, 1000, backend, feed=feed, kill=kill) - exact).square().mean((1, 2, 3)).sqrt()
        for backend in ("native", "reference")
    }
    assert (rms["native"] / rms["reference"]).median() < 2


# Mathematics.


def test_the_stable_homogeneous_state_stays_and_attracts():
    feed = kill = 0.04  # U = 0.2, V = 0.4
    state = torch.tensor([0.2, 0.4]).view(1, 2, 1, 1).expand(1, 2, 24, 40).contiguous()
    stay = simulate(state, 10_000, feed=feed, kill=kill)
    assert (stay - state).abs().max() < 2e-7
    noise = 1e-2 * torch.randn(state.shape, generator=torch.Generator().manual_seed(0))
    pulled = simulate(state + noise, 1000, feed=feed, kill=kill)
    assert (pulled - state).abs().max() < 1e-6


@pytest.mark.parametrize("stencil", STENCILS)
@pytest.mark.parametrize("mode", [(1, 0), (2, 3), (0, 7)])
def test_small_modes_grow_at_the_linear_rate(mode, stencil):
    height, width, steps, amplitude = 20, 28, 20, 1e-6
    feed = kill = 0.04
    u, v = 0.2, 0.4
    rows, columns = torch.arange(height).double(), torch.arange(width).double()
    phase = 2 * math.pi * (mode[0] * rows[:, None] / height + mode[1] * columns / width)
    wave = phase.cos()
    symbol = float((laplacian(wave[None], stencil)[0] * wave).sum() / (wave * wave).sum())
    jacobian = torch.tensor([[-v * v - feed, -2 * u * v], [v * v, 2 * u * v - feed - kill]], dtype=torch.float64)
    growth = torch.eye(2, dtype=torch.float64) + jacobian + symbol * torch.diag(torch.tensor([0.16, 0.08]).double())
    direction = torch.tensor([1.0, -0.5], dtype=torch.float64)
    base = torch.tensor([u, v], dtype=torch.float64).view(1, 2, 1, 1)
    state = base + amplitude * direction.view(1, 2, 1, 1) * wave
    result = simulate(state, steps, feed=feed, kill=kill, stencil=stencil) - base
    expected = amplitude * (torch.linalg.matrix_power(growth, steps) @ direction).view(1, 2, 1, 1) * wave
    assert (result - expected).abs().max() < 1e-4 * expected.abs().max()


def test_without_reaction_the_complement_of_u_diffuses_linearly():
    generator = torch.Generator().manual_seed(1)
    state = torch.stack([torch.rand(1, 32, 48, generator=generator), torch.zeros(1, 32, 48)], 1)
    result = simulate(state, 200)
    frequencies = torch.fft.fft2(1 - state[:, 0].double())
    y, x = torch.arange(32).double(), torch.arange(48).double()
    symbol = (2 * (2 * math.pi * y / 32).cos())[:, None] + 2 * (2 * math.pi * x / 48).cos() - 4
    expected = 1 - torch.fft.ifft2(frequencies * (1 - 0.018 + 0.16 * symbol) ** 200).real
    assert (result[:, 0] - expected).abs().max() < 2e-7
    assert (result[:, 1] == 0).all()


def test_without_feed_and_kill_the_sum_is_conserved():
    state = start(2, 50, 60)
    before, after = state.double().sum((1, 2, 3)), simulate(state, 1000, feed=0.0, kill=0.0).double().sum((1, 2, 3))
    assert ((after - before) / before).abs().max() < 2e-6


@pytest.mark.parametrize("move", ["shift", "transpose", "half turn"])
def test_symmetries_hold_to_the_bit(move):
    act = {
        "shift": lambda s: s.roll((7, 11), (-2, -1)),
        "transpose": lambda s: s.transpose(-2, -1).contiguous(),
        "half turn": lambda s: s.flip(-2, -1),
    }[move]
    state = start(1, 48, 48)
    assert torch.equal(simulate(act(state), 300), act(simulate(state, 300)))


def test_both_laplacians_converge_to_second_order():
    errors = {}
    for n in (16, 32, 64):
        x = 2 * math.pi * torch.arange(n, dtype=torch.float64) / n
        field = torch.sin(x)[:, None] * torch.cos(2 * x)
        for stencil in STENCILS:
            value = laplacian(field, stencil) / (2 * math.pi / n) ** 2
            errors.setdefault(stencil, []).append((value + 5 * field).abs().max().item())
    for stencil in STENCILS:
        orders = [math.log2(a / b) for a, b in zip(errors[stencil], errors[stencil][1:], strict=False)]
        assert orders == pytest.approx([2, 2], abs=0.1)


def test_dx_and_dt_scale_as_the_equation_says():
    state = start(1, 24, 24)
    assert torch.equal(simulate(state, 40, dx=2.0, diffusion_u=0.64, diffusion_v=0.32), simulate(state, 40))


def test_the_dithered_coefficient_is_right_on_average():
    exact = torch.rand(1000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    low, high, mask = _dither(exact, torch.float32)
    ones = sum((mask.long() >> step) & 1 for step in range(8))
    mean = low.double() + (high - low).double() * ones / 8
    assert ((mean - exact).abs() <= (high - low).double() / 16 * (1 + 1e-9)).all()


# Errors.


@pytest.mark.parametrize(
    "change, error, message",
    [
        (dict(state=torch.zeros(2, 8, 8)), ValueError, r"expected state \[batch, 2, height, width\]"),
        (dict(state=torch.zeros(1, 2, 2, 8)), ValueError, "height and width from 3 up"),
        (dict(state=torch.zeros(1, 2, 8, 8, dtype=torch.float16)), TypeError, "float32 or float64"),
        (dict(state=[[1.0]]), TypeError, "torch.Tensor"),
        (dict(steps=-1), ValueError, "steps from 0 up"),
        (dict(every=3), ValueError, "every"),
        (dict(dt=-0.5), ValueError, "dt and dx above 0"),
        (dict(stencil="7-point"), ValueError, "'5-point' or '9-point'"),
        (dict(feed=float("nan")), ValueError, "finite"),
        (dict(kill=-0.1), ValueError, "not negative"),
        (dict(feed=torch.ones(3)), ValueError, r"a number or a tensor \[2\]"),
        (dict(dt=2.0), ValueError, "unstable for sample 0: the limit is 1.541"),
        (dict(feed=torch.tensor([0.018, 0.9])), ValueError, "unstable for sample 1"),
        (dict(backend="fast"), ops.BackendError, "expected backend"),
    ],
)
def test_bad_arguments_name_what_is_expected(change, error, message):
    arguments = dict(state=start(2, 8, 8), steps=8, **WAVE) | change
    with pytest.raises(error, match=message):
        ops.gray_scott(arguments.pop("state"), arguments.pop("steps"), **arguments)


@pytest.mark.parametrize("backend", ["native", "reference"])
def test_non_finite_states_are_errors(backend):
    state = start(3, 8, 8)
    state[1, 0, 2, 3] = float("nan")
    with pytest.raises(ValueError, match="sample 1 has NaN"):
        simulate(state, 4, backend)
    with pytest.raises(FloatingPointError, match="sample 0 grew beyond all bounds"):
        simulate(torch.full((1, 2, 8, 8), 1e3), 10, backend)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # of torch.func.jvp itself
def test_derivatives_are_refused():
    state = start(1, 8, 8)
    with pytest.raises(NotImplementedError, match="no derivative"):
        simulate(state.clone().requires_grad_(), 2)
    with pytest.raises(NotImplementedError, match="no derivative"):
        torch.func.jvp(lambda s: simulate(s, 2), (state,), (torch.ones_like(state),))


def test_the_operator_is_registered_properly():
    state = start(2, 9, 12)
    parameters = torch.tensor([0.018, 0.049, 0.16, 0.08], dtype=torch.float64)[:, None].expand(4, 2)
    for each in (state, state.transpose(2, 3).contiguous().transpose(2, 3)):
        torch.library.opcheck(torch.ops.eqflow.gray_scott.default, (each, 6, 3, parameters, 1.0, "5-point", "native"))


def test_it_compiles_as_one_graph():
    state = start(1, 8, 8)
    compiled = torch.compile(
        lambda s: torch.ops.eqflow.gray_scott.default(
            s, 4, 4, torch.tensor([[0.018], [0.049], [0.16], [0.08]], dtype=torch.float64), 1.0, "5-point", "native"
        ),
        fullgraph=True,
        backend="eager",
    )
    assert torch.equal(compiled(state)[:, 0], simulate(state, 4))


# GPU.


@pytest.mark.gpu
@pytest.mark.parametrize("stencil", STENCILS)
@pytest.mark.parametrize("dt", [1.0, 0.5])
@pytest.mark.parametrize("height, width", [*SIZES, (256, 256), (600, 240)])
def test_gpu_gives_the_bits_of_the_cpu(height, width, dt, stencil):
    state = start(3, height, width)
    options = dict(dt=dt, stencil=stencil, every=9)
    assert torch.equal(simulate(state.cuda(), 27, **options).cpu(), simulate(state, 27, **options))


@pytest.mark.gpu
@pytest.mark.parametrize("height, width", [(17, 5), (128, 128), (256, 256)])
def test_triton_on_gpu_agrees(height, width):
    state = start(2, height, width)
    on_gpu = simulate(state.cuda(), 100, "triton").cpu()
    assert (on_gpu - simulate(state, 100)).abs().max() < 1e-6
