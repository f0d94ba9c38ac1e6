import math

import pytest
import torch

from eqflow import ops
from eqflow.ops import langevin
from eqflow.ops._backend import native_module

SEED = 0x0123456789ABCDEF
COUNTER = dict(seed=SEED, step=2**32 + 5, first_sample=3)
TURN = torch.tensor([[0.0, -1.0], [1.0, 0.0]])[:, :, None, None]
FIELDS = [  # shape, radius
    ((2, 1, 7, 9), 0),
    ((2, 2, 33, 47), 0),
    ((3, 3, 20, 26), 0),
    ((1, 5, 16, 100), 0),
    ((1, 17, 13, 11), 0),
    ((1, 1, 40, 31), 1),
    ((2, 2, 33, 47), 1),
    ((2, 4, 16, 64), 1),
    ((1, 17, 9, 8), 1),
    ((1, 3, 29, 67), 2),
    ((1, 16, 12, 16), 2),
    ((2, 2, 3, 1300), 1),
    ((1, 2, 41, 2), 3),  # a kernel wider than the grid
]
FEW_PIXELS = [((70, 2, 3, 5), 0), ((3, 3, 2, 4), 1), ((65, 2, 1, 3), 2), ((2, 9, 4, 4), 1)]
POINTS = [((count, dimension), 0) for count in (1, 63, 200) for dimension in (1, 2, 3, 4, 7, 20)]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def problem(shape, radius, seed=0):
    """State, output, two kernels whose sums neither grow nor vanish, and a base."""
    random = generator(seed)
    channels, size = shape[1], 2 * radius + 1
    state, output, base = (torch.randn(shape, generator=random) for _ in range(3))
    kernels = torch.randn(2, channels, channels, size, size, generator=random) / math.sqrt(channels * size**2)
    return state, output, *kernels, base


def skew(channels, radius, seed=0):
    kernel = torch.randn(channels, channels, 2 * radius + 1, 2 * radius + 1, generator=generator(seed)).double()
    kernel = kernel - kernel.transpose(0, 1).flip(2, 3)
    return kernel / kernel.norm()


def error(result, exact):
    """Relative to the largest number of the field."""
    return (result.double() - exact).abs().max() / exact.abs().max()


# Every backend against the specification.


@pytest.mark.parametrize("shape, radius", [*FIELDS, *FEW_PIXELS, *POINTS])
def test_every_instruction_set_agrees_with_the_reference(isa, shape, radius):
    state, output, state_kernel, output_kernel, base = problem(shape, radius)
    for options in (
        dict(noise_scale=0.3),
        dict(noise_scale=0.0),
        dict(noise_scale=0.3, base=base, base_scale=0.5),
        dict(noise_scale=0.3, output=output.bfloat16()),
        dict(noise_scale=0.3, output=None),
    ):
        arguments = dict(state=state, output=output, state_kernel=state_kernel, output_kernel=output_kernel)
        arguments |= options | COUNTER
        result = ops.langevin_update(**arguments, backend="native")
        arguments["state"] = state.double()
        for name in ("output", "base"):
            if arguments.get(name) is not None:
                arguments[name] = arguments[name].double()
        exact = ops.langevin_update(**arguments, backend="reference")
        assert result.shape == shape and result.dtype == torch.float32
        assert error(result, exact) < 2e-6


def test_the_reference_is_conv2d_with_circular_padding():
    state, _, state_kernel, _, _ = problem((2, 3, 8, 9), 1)
    padded = torch.nn.functional.pad(state, (1, 1, 1, 1), mode="circular")
    expected = torch.nn.functional.conv2d(padded, state_kernel)
    result = ops.langevin_update(state, None, state_kernel, None, 0.0, seed=0, step=0, backend="reference")
    assert (result - expected).abs().max() < 1e-6


@pytest.mark.parametrize("shape", [(4, 2, 16, 32), (3, 3, 9, 11), (200, 3), (5, 2, 3, 5), (70, 1)])
def test_the_noise_is_that_of_ops_normal(isa, shape):
    state, kernel = torch.zeros(shape), torch.zeros(shape[1], shape[1], 1, 1)
    for step in (0, 2**40 + 7):
        for stream in (2, 5):
            counter = dict(seed=2**64 - 3, step=step, stream=stream, first_sample=11)
            result = ops.langevin_update(state, None, kernel, None, 1.0, **counter, backend="native")
            assert torch.equal(result.flatten(1), ops.normal(len(state), state[0].numel(), **counter))


@pytest.mark.parametrize("shape, radius", [*FIELDS, *FEW_PIXELS, ((150, 3), 0), ((9, 2, 128, 128), 1)])
def test_bits_do_not_depend_on_instruction_set_threads_or_batch(shape, radius, threads):
    module, (state, output, *kernels, base) = native_module(), problem(shape, radius)
    before, results = module.cpu_isa(), []
    options = dict(seed=SEED, step=9, base_scale=0.5, backend="native")
    for isa in module.cpu_isas():
        module.set_cpu_isa(isa)
        for count in (1, 2, 3):
            threads(count)
            results.append(ops.langevin_update(state, output, *kernels, 0.3, base=base, **options))
        parts = [slice(0, len(state) // 2), slice(len(state) // 2, None)]
        results.append(
            torch.cat(
                [
                    ops.langevin_update(
                        state[part], output[part], *kernels, 0.3, base=base[part], first_sample=part.start, **options
                    )
                    for part in parts
                ]
            )
        )
    module.set_cpu_isa(before)
    assert all(torch.equal(result, results[0]) for result in results)


def test_without_noise_the_counter_does_not_matter():
    state, output, *kernels, _ = problem((3, 2, 16, 16), 1)
    results = [ops.langevin_update(state, output, *kernels, 0.0, seed=s, step=s) for s in (1, 2)]
    assert torch.equal(*results)


def test_permuted_and_empty_input():
    state, output, *kernels, _ = problem((2, 3, 12, 20), 1)
    last = state.to(memory_format=torch.channels_last)
    expected = ops.langevin_update(state, output, *kernels, 0.1, seed=1, step=1)
    assert torch.equal(ops.langevin_update(last, output, *kernels, 0.1, seed=1, step=1), expected)
    assert ops.langevin_update(state[:0], output[:0], *kernels, 0.1, seed=1, step=1).shape == (0, 3, 12, 20)


def test_a_step_in_memory_equals_an_integer():
    state, output, *kernels, _ = problem((3, 2), 0)
    for backend in ("native", "reference"):
        counted = ops.langevin_update(state, output, *kernels, 0.1, seed=1, step=torch.tensor(2**33), backend=backend)
        assert torch.equal(
            counted, ops.langevin_update(state, output, *kernels, 0.1, seed=1, step=2**33, backend=backend)
        )


# Steps.


def test_a_step_is_the_textbook_formula():
    kernel, eta, dt = skew(3, 1), 0.2, 0.05
    state, output = torch.randn(2, 2, 3, 6, 5, generator=generator(1)).double()
    score = 0.7 * state - 1.3 * output
    noise = ops.normal(2, 90, seed=4, step=6, stream=2).view_as(state)
    drift = langevin.convolve(kernel, score) + eta * score
    expected = state + dt * drift + math.sqrt(2 * eta * dt) * noise
    options = dict(kernel=kernel, eta=eta, dt=dt, seed=4, step=6, state_scale=0.7, output_scale=-1.3)
    exact = ops.langevin_step(state, output, **options, backend="reference")
    assert (exact - expected).abs().max() < 1e-6  # the reference takes its normals in float64
    assert (ops.langevin_step(state.float(), output.float(), **options) - expected).abs().max() < 2e-6


def test_heun_in_two_passes_is_the_textbook_formula():
    kernel, eta, dt = skew(2, 1), 0.2, 0.05
    state = torch.randn(2, 2, 6, 5, generator=generator(1)).double()

    def drift(x):
        score = 0.4 * x - torch.tanh(x)
        return langevin.convolve(kernel, score) + eta * score

    noise = math.sqrt(2 * eta * dt) * ops.normal(2, 60, seed=4, step=6, stream=2, backend="reference").view_as(state)
    predicted = state + dt * drift(state) + noise
    expected = state + dt / 2 * (drift(state) + drift(predicted)) + noise
    first, second = langevin.heun(kernel, eta, dt, state_scale=0.4, output_scale=-1.0)
    counter = dict(seed=4, step=6, backend="reference")
    moved = ops.langevin_update(state, torch.tanh(state), *first[:3], **counter)
    moved = ops.langevin_update(moved, torch.tanh(moved), *second[:3], **counter, base=state, base_scale=0.5)
    assert (moved - expected).abs().max() < 1e-12


@pytest.mark.parametrize("channels", [2, 3, 5])
@pytest.mark.parametrize("alpha", [0.5, 0.9448])
def test_the_three_predictions_give_one_ornstein_uhlenbeck_step(channels, alpha):
    kernel, root, rest = skew(channels, 0), math.sqrt(alpha), math.sqrt(1 - alpha)
    clean, noise = torch.randn(2, 50, channels, generator=generator(2)).double()
    state = root * clean + rest * noise
    outputs = {"x0": clean, "epsilon": noise, "v": root * noise - rest * clean}
    results = []
    for prediction, output in outputs.items():
        update = langevin.ornstein_uhlenbeck(kernel, 0.1, 0.02, alpha, prediction)
        results.append(ops.langevin_update(state, output, *update[:3], seed=0, step=0, backend="reference"))
    assert all((result - results[0]).abs().max() < 1e-13 for result in results)


@pytest.mark.parametrize("eta", [0.0, 0.1, 2.0])
def test_the_exact_step_keeps_the_noise_around_a_constant_denoiser(eta):
    """x = sqrt(alpha) D + r with r of covariance (1 - alpha) I: E E^T (1 - alpha) + c^2 I = (1 - alpha) I."""
    alpha, kernel = 0.9, skew(4, 0)
    decay, output_kernel, noise_scale, *_ = langevin.ornstein_uhlenbeck(kernel, eta, 0.05, alpha)
    decay, output_kernel = decay[:, :, 0, 0], output_kernel[:, :, 0, 0]
    one = torch.eye(4).double()
    covariance = (1 - alpha) * decay @ decay.T + noise_scale**2 * one
    assert (covariance - (1 - alpha) * one).abs().max() < 1e-14
    assert (decay * math.sqrt(alpha) + output_kernel - math.sqrt(alpha) * one).abs().max() < 1e-14  # D stays


def dense(kernel, height, width):
    """The matrix of kernel * on flattened fields."""
    channels = len(kernel)
    sites = channels * height * width
    basis = torch.eye(sites, dtype=torch.float64).view(sites, channels, height, width)
    return langevin.convolve(kernel.double(), basis).view(sites, sites).T


@pytest.mark.parametrize("order", [1, 2, 4])
@pytest.mark.parametrize("channels, radius", [(2, 1), (1, 1), (2, 2)])
def test_the_series_is_as_close_to_the_exponential_as_it_says(channels, radius, order):
    kernel, eta, dt, alpha = skew(channels, radius), 0.3, 0.02, 0.9
    update = langevin.ornstein_uhlenbeck(kernel, eta, dt, alpha, order=order)
    h = dt / (1 - alpha)
    exact = math.exp(-eta * h) * torch.linalg.matrix_exp(-h * dense(kernel, 5, 6))
    error = torch.linalg.matrix_norm(dense(update.state_kernel, 5, 6) - exact, 2)
    assert update.error / 5 < error < update.error  # the grid has few wave vectors, and the bound is of all of them
    assert update.state_kernel.shape[-1] == 2 * order * radius + 1


# Statistics in closed form: s = -P x, so one step multiplies by M and adds N xi.


def stationary(move, spread):
    """C = M C M^T + N N^T."""
    size = len(move)
    operator = torch.eye(size**2, dtype=torch.float64) - torch.kron(move, move)
    return torch.linalg.solve(operator, (spread @ spread.T).flatten()).view(size, size)


def linear_step(scheme, drift, eta, dt):
    one, z = torch.eye(len(drift), dtype=torch.float64), dt * drift
    sigma = math.sqrt(2 * eta * dt)
    return (one + z, sigma * one) if scheme == "euler" else (one + z + z @ z / 2, sigma * (one + z / 2))


def run_chain(scheme, kernel, precision, start, eta, dt, steps, symmetric=0.0):
    """The last state and the one before it; `symmetric` spoils the skew-symmetric kernel."""

    def score(x):
        return -(x.flatten(1) @ precision.T).view_as(x)

    first, second = langevin.heun(kernel.float(), eta, dt)
    spoil = torch.zeros_like(first.state_kernel)
    spoil[:, :, spoil.shape[2] // 2, spoil.shape[3] // 2] = dt * symmetric
    state = before = start
    for step in range(steps):
        before, counter = state, dict(seed=7, step=step)
        state = ops.langevin_update(before, score(before), first[0], first[1] + spoil, first[2], **counter)
        if scheme == "heun":
            kernels = second[0], second[1] + spoil / 2, second[2]
            state = ops.langevin_update(state, score(state), *kernels, **counter, base=before, base_scale=0.5)
    return state.flatten(1).double(), before.flatten(1).double()


def standard_errors(samples, covariance):
    """How far the covariance of samples is from the exact one, in units of its standard error."""
    variance = covariance.diagonal()
    error = ((variance[:, None] * variance + covariance**2) / len(samples)).sqrt()
    return ((samples.T @ samples / len(samples) - covariance) / error).abs().max()


CHAINS = [  # shape of a sample, radius, chains
    ((2,), 0, 60_000),
    ((3,), 0, 60_000),
    ((5,), 0, 30_000),
    ((1, 4, 5), 1, 20_000),
    ((2, 3, 4), 1, 20_000),
    ((1, 5, 5), 2, 20_000),
]


def gaussian_target(shape, radius):
    """A skew-symmetric kernel, its matrix, and the matrix of a symmetric positive kernel: the precision."""
    channels, (height, width) = shape[0], shape[1:] or (1, 1)
    kernel = 1.5 * skew(channels, radius, seed=3)
    precision = torch.randn(kernel.shape, generator=generator(4)).double()
    precision = (precision + precision.transpose(0, 1).flip(2, 3)) / (12 * math.sqrt(kernel[0].numel()))
    precision[:, :, radius, radius] += torch.diag(torch.linspace(0.8, 1.6, channels))
    return kernel, dense(kernel, height, width), dense(precision, height, width)


@pytest.mark.parametrize("scheme", ["euler", "heun"])
@pytest.mark.parametrize("shape, radius, chains", CHAINS)
def test_the_stationary_covariance_is_that_of_the_linear_recursion(scheme, shape, radius, chains):
    eta, dt = 0.4, 0.1
    kernel, skew_matrix, precision = gaussian_target(shape, radius)
    size = len(skew_matrix)
    assert torch.linalg.eigvalsh(precision).min() > 0.3
    drift = -(skew_matrix + eta * torch.eye(size).double()) @ precision
    move, spread = linear_step(scheme, drift, eta, dt)
    covariance = stationary(move, spread)
    root = torch.linalg.cholesky(covariance)
    start = (ops.normal(chains, size, seed=1).double() @ root.T).float().view(chains, *shape)
    state, before = run_chain(scheme, kernel, precision.float(), start, eta, dt, 40)
    assert standard_errors(state, covariance) < 4

    # E[x' x^T] = M C, whose antisymmetric part is the rotation by the skew-symmetric kernel.
    lagged = state.T @ before / chains
    turn, expected = lagged - lagged.T, move @ covariance - covariance @ move.T
    variance = covariance.diagonal()
    error = (2 * variance[:, None] * variance / chains).sqrt()
    assert ((turn - expected).abs() / error).max() < 4 < 8 < (expected.abs() / error).max()

    spoiled, _ = run_chain(scheme, kernel, precision.float(), start, eta, dt, 40, symmetric=0.1)
    assert standard_errors(spoiled, covariance) > 8, "the check must notice a symmetric part"


def test_heun_is_close_to_the_target_and_euler_is_not():
    _, skew_matrix, precision = gaussian_target((2,), 0)
    target = torch.linalg.inv(precision)
    drift = -(skew_matrix + 0.1 * torch.eye(2)) @ precision
    miss = {s: (stationary(*linear_step(s, drift, 0.1, 0.1)) - target).abs().max() for s in ("euler", "heun")}
    assert miss["heun"] < 0.02 < 0.2 < miss["euler"]


def test_samples_of_the_exact_step_stay_around_a_constant_denoiser():
    alpha, chains = 0.9448, 100_000
    mean = torch.tensor([0.3, -0.7, 1.1])
    update = langevin.ornstein_uhlenbeck(skew(3, 0).float(), 0.1, 0.05, alpha)
    start = math.sqrt(alpha) * mean + math.sqrt(1 - alpha) * ops.normal(chains, 3, seed=1)
    state, output = start, mean.expand(chains, 3).contiguous()
    for step in range(30):
        state = ops.langevin_update(state, output, *update[:3], seed=5, step=step)
    rest = (state - math.sqrt(alpha) * mean).double()
    assert (rest.mean(0) / math.sqrt((1 - alpha) / chains)).abs().max() < 4
    assert standard_errors(rest, (1 - alpha) * torch.eye(3).double()) < 4
    assert abs((state * start).mean() / (start * start).mean()) < 0.99  # and they do move


# Contract.


def test_the_operator_is_registered_properly():
    state, output, *kernels, base = problem((2, 3, 6, 5), 1)
    for each in (state, state.to(memory_format=torch.channels_last)):
        arguments = (each, output, *kernels, 0.1, 1, 2, None, 0, 2, base, 0.5, "native")
        torch.library.opcheck(torch.ops.eqflow.langevin_update.default, arguments)


GOOD = dict(
    state=torch.zeros(2, 2, 4, 4), output=torch.zeros(2, 2, 4, 4), kernel=TURN, eta=0.1, dt=0.01, seed=0, step=0
)
BROKEN = TURN + torch.tensor([[0.0, 0.0], [0.25, 0.0]])[:, :, None, None]


@pytest.mark.parametrize(
    "change, error, message",
    [
        (dict(kernel=BROKEN), ValueError, r"K\[0, 1, 0, 0\] = -1 and K\[1, 0, 0, 0\] = 1.25 add up to 0.25"),
        (dict(kernel=TURN * math.nan), ValueError, "expected a skew-symmetric kernel"),
        (dict(kernel=torch.zeros(3, 3, 1, 1)), ValueError, r"expected state_kernel \[2, 2, 2r \+ 1, 2r \+ 1\]"),
        (dict(kernel=torch.zeros(2, 2, 2, 2)), ValueError, r"expected kernel \[channels, channels, 2r"),
        (dict(kernel=TURN.int()), TypeError, "floating-point"),
        (dict(eta=-0.1), ValueError, "expected eta from 0 up"),
        (dict(eta=math.nan), ValueError, "expected eta from 0 up"),
        (dict(dt=0.0), ValueError, "dt above 0"),
        (dict(output_scale=math.inf), ValueError, "expected finite scales"),
        (dict(state=[1.0]), TypeError, "expected state as a torch.Tensor"),
        (dict(state=torch.zeros(2, 4, 4)), ValueError, r"expected state \[batch, channels, height, width\]"),
        (dict(state=torch.zeros(2, 2, 4, 4).half()), TypeError, "expected state in torch.float32 or torch.float64"),
        (dict(output=torch.zeros(2, 2, 4, 5)), ValueError, r"expected output like the state, \[2, 2, 4, 4\] on cpu"),
        (
            dict(output=torch.zeros(2, 2, 4, 4).double()),
            TypeError,
            "expected output in torch.float32 or torch.bfloat16",
        ),
        (dict(step=-1), ValueError, "expected step in"),
        (dict(step=torch.zeros(2)), TypeError, "an int64 scalar tensor"),
        (dict(seed=2**64), ValueError, "expected seed in"),
        (dict(first_sample=2**32 - 1), ValueError, "expected first_sample in"),
        (dict(backend="fast"), ops.BackendError, "expected backend"),
    ],
)
def test_bad_arguments_name_what_is_expected(change, error, message):
    arguments = GOOD | change
    if change.get("state") is not None and "output" not in change:
        arguments["output"] = None
    with pytest.raises(error, match=message):
        ops.langevin_step(arguments.pop("state"), arguments.pop("output"), **arguments)


def test_bad_updates_name_what_is_expected():
    state, counter = torch.zeros(2, 2), dict(seed=0, step=0)
    with pytest.raises(ValueError, match="kernels of one size"):
        ops.langevin_update(state, state, TURN, torch.zeros(2, 2, 3, 3), 0.0, **counter)
    with pytest.raises(ValueError, match=r"a base to go with base_scale = 0\.5"):
        ops.langevin_update(state, state, TURN, TURN, 0.0, **counter, base_scale=0.5)
    with pytest.raises(ValueError, match="noise_scale from 0 up"):
        ops.langevin_update(state, state, TURN, TURN, -1.0, **counter)
    with pytest.raises(TypeError, match="float32 state for backend 'native'"):
        ops.langevin_update(state.double(), None, TURN, None, 0.0, **counter, backend="native")
    with pytest.raises(ValueError, match="expected alpha between 0 and 1"):
        langevin.ornstein_uhlenbeck(TURN, 0.1, 0.01, 1.0)
    with pytest.raises(ValueError, match="expected prediction 'x0', 'v', 'epsilon', got 'y'"):
        langevin.ornstein_uhlenbeck(TURN, 0.1, 0.01, 0.9, "y")


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # of torch.func.jvp itself
def test_derivatives_are_refused():
    state = torch.zeros(1, 2)
    for arguments in ((state.clone().requires_grad_(), state), (state, state.clone().requires_grad_())):
        with pytest.raises(NotImplementedError, match="no derivative"):
            ops.langevin_update(*arguments, TURN, TURN, 0.0, seed=0, step=0)
    with pytest.raises(NotImplementedError, match="no derivative"):
        torch.func.jvp(
            lambda s: ops.langevin_update(s, None, TURN, None, 0.0, seed=0, step=0), (state,), (torch.ones_like(state),)
        )


# GPU.


@pytest.mark.gpu
@pytest.mark.parametrize("backend", ["native", "triton"])
@pytest.mark.parametrize("shape, radius", [*FIELDS, *FEW_PIXELS, *POINTS, ((8, 2, 128, 128), 0), ((8, 16, 64, 64), 1)])
def test_gpu_gives_the_bits_of_the_cpu(backend, shape, radius):
    state, output, *kernels, base = problem(shape, radius)
    for half in (False, True):
        output = output.bfloat16() if half else output
        on_gpu = [x.cuda() for x in (state, output, *kernels)]
        result = ops.langevin_update(*on_gpu, 0.3, **COUNTER, base=base.cuda(), base_scale=0.5, backend=backend)
        expected = ops.langevin_update(state, output, *kernels, 0.3, **COUNTER, base=base, base_scale=0.5)
        assert torch.equal(result.cpu(), expected)


@pytest.mark.gpu
@pytest.mark.parametrize("backend", ["native", "triton"])
def test_a_captured_graph_counts_its_steps(backend):
    state, output, *kernels, _ = (x.cuda() for x in problem((4, 2, 32, 32), 0))
    step = torch.zeros((), dtype=torch.int64, device="cuda")
    arguments = (output, *kernels, 0.3)
    ops.langevin_update(state, *arguments, seed=1, step=step, backend=backend)  # loads the kernel
    graph, moving = torch.cuda.CUDAGraph(), state.clone()
    with torch.cuda.graph(graph):
        moving.copy_(ops.langevin_update(moving, *arguments, seed=1, step=step, backend=backend))
        step += 1
    for _ in range(5):
        graph.replay()
    expected = state
    for n in range(5):
        expected = ops.langevin_update(expected, *arguments, seed=1, step=n, backend=backend)
    assert torch.equal(moving, expected)
