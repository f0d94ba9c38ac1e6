"""The Triton kernels against the native CPU kernels: in the interpreter, or compiled where there is a GPU."""

import importlib

import numpy as np
import pytest
import torch

from eqflow import ops
from eqflow.ops import philox

triton = pytest.importorskip("triton")
from triton import language as tl  # noqa: E402
from triton.runtime import interpreter  # noqa: E402

from eqflow.kernels import gray_scott as gray_scott_kernels  # noqa: E402
from eqflow.kernels import normal as normal_kernels  # noqa: E402

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SEED = 0x0123456789ABCDEF
GOLDEN_WORDS = (0xCD166913, 0x645067AC, 0x8009A92C, 0x68366ACC, 0x67E940D0, 0x2142A00E, 0x268AEC03, 0xF972F2B6)
GOLDEN_NORMALS = (0xBF049D24, 0x3ED64443, 0xBF7B6F93, 0x3F261CF7, 0x3F6B7340, 0x3F7A7C5C, 0x3FF5DF49, 0xBE9F81E3)
GOLDEN = {"seed": SEED, "step": 2**32 + 5, "stream": 2, "first_sample": 3}


@pytest.fixture
def fma_rounds_once(monkeypatch):
    """Mends the interpreter of Triton before 3.9, whose fma rounds twice; after that, bits can be compared."""

    def create_fma(self, x, y, z):
        exact = x.data.astype(np.float64) * y.data + z.data
        return interpreter.TensorHandle(exact.astype(np.float32), z.dtype.scalar)

    monkeypatch.setattr(interpreter.InterpreterBuilder, "create_fma", create_fma)


@triton.jit(do_not_specialize=["seed", "step_low", "step_high", "first_sample"])
def words_kernel(
    output,  # [samples, groups, 4]
    seed: tl.uint64,
    step_low: tl.uint32,
    step_high: tl.uint32,
    first_sample: tl.int64,
    SAMPLES: tl.constexpr,
    GROUPS: tl.constexpr,
):
    counter = tl.arange(0, SAMPLES * GROUPS)
    sample = first_sample + counter // GROUPS
    x, y, z, w = normal_kernels.site_words(counter % GROUPS, sample, step_low, step_high, seed)
    to = output + 4 * counter
    tl.store(to, x.to(tl.int64))
    tl.store(to + 1, y.to(tl.int64))
    tl.store(to + 2, z.to(tl.int64))
    tl.store(to + 3, w.to(tl.int64))


def triton_words(samples: int, groups: int, *, seed: int, step: int, stream: int, first_sample: int) -> torch.Tensor:
    output = torch.empty(samples, 4 * groups, dtype=torch.int64, device=DEVICE)
    low, high = step & 0xFFFFFFFF, stream << 24 | step >> 32
    words_kernel[(1,)](output, seed, low, high, first_sample, SAMPLES=samples, GROUPS=groups)
    return output.cpu()


def bits(values: torch.Tensor) -> list[int]:
    return [value & 0xFFFFFFFF for value in values.cpu().view(torch.int32).flatten().tolist()]


def ulps(a: torch.Tensor, b: torch.Tensor) -> int:
    """Largest distance in units in the last place; the signs agree wherever the numbers do."""
    return int((a.cpu().view(torch.int32).long() - b.cpu().view(torch.int32).long()).abs().max())


def draws(batch: int, sites: int, **counter: int) -> tuple[torch.Tensor, torch.Tensor]:
    compiled = ops.normal(batch, sites, **counter, device=DEVICE, backend="triton")
    return compiled, ops.normal(batch, sites, **counter, backend="native")


NORMAL_CASES = [
    (1, 1, {"seed": 0}),
    (5, 7, {"seed": 2**64 - 1, "step": 2**56 - 1, "stream": 255, "first_sample": 2**32 - 5}),
    (3, 64, {"seed": 2**63, "step": 2**32, "stream": 128}),
    (2, 40_001, {"seed": 2**31 + 7, "step": 2**31 + 1, "stream": 130}),  # more than one program a row
    (20_000, 3, {"seed": 2**32 - 1, "first_sample": 16}),  # many rows a program
    (0, 8, {"seed": 1}),
]


@pytest.mark.parametrize(
    "counter",
    [
        {"seed": 0, "step": 0, "stream": 0, "first_sample": 0},
        {"seed": 2**64 - 1, "step": 2**56 - 1, "stream": 255, "first_sample": 2**32 - 4},
        GOLDEN,
    ],
)
def test_words_equal_the_reference(counter):
    samples = torch.arange(4) + counter["first_sample"]
    key = {name: counter[name] for name in ("seed", "step", "stream")}
    assert torch.equal(triton_words(4, 8, **counter), philox.words(samples, 32, **key))


def test_words_and_normals_equal_the_golden_values():
    assert triton_words(1, 2, **GOLDEN).flatten().tolist() == list(GOLDEN_WORDS)
    compiled, _ = draws(1, 8, **GOLDEN)
    assert bits(compiled) == list(GOLDEN_NORMALS)


@pytest.mark.parametrize(("batch", "sites", "counter"), NORMAL_CASES)
def test_normals_are_within_four_units_of_native(batch, sites, counter):
    compiled, native = draws(batch, sites, **counter)
    assert compiled.shape == native.shape and not compiled.isnan().any()
    assert compiled.numel() == 0 or ulps(compiled, native) <= 4


@pytest.mark.parametrize(("batch", "sites", "counter"), NORMAL_CASES)
def test_normals_equal_native_to_the_bit(fma_rounds_once, batch, sites, counter):
    compiled, native = draws(batch, sites, **counter)
    assert torch.equal(compiled.cpu(), native)


def start(height: int, width: int, batch: int = 2) -> torch.Tensor:
    state = torch.rand(batch, 2, height, width, generator=torch.Generator().manual_seed(7)) / 2
    state[:, 0] += 0.5
    return state


def run(state: torch.Tensor, steps: int, backend: str, **options) -> torch.Tensor:
    options = {"feed": torch.tensor([0.018, 0.03]), "kill": torch.tensor([0.049, 0.057]), **options}
    device = DEVICE if backend == "triton" else "cpu"
    return ops.gray_scott(state.to(device), steps, backend=backend, **options).cpu()


@pytest.mark.parametrize("stencil", ["5-point", "9-point"])
@pytest.mark.parametrize(("height", "width", "every", "dt"), [(24, 20, 25, 1.0), (17, 33, 20, 0.5)])
def test_gray_scott_is_within_1e_6_of_native(height, width, every, dt, stencil):
    state = start(height, width)
    options = {"dt": dt, "stencil": stencil, "every": every}
    frames, native = run(state, 100, "triton", **options), run(state, 100, "native", **options)
    assert frames.shape == (2, 100 // every, 2, height, width)
    torch.testing.assert_close(frames, native, rtol=0, atol=1e-6)


@pytest.mark.parametrize("stencil", ["5-point", "9-point"])
@pytest.mark.parametrize("dt", [1.0, 0.5])
@pytest.mark.parametrize(("height", "width"), [(3, 3), (17, 33), (65, 70)])  # the last takes two programs a sample
def test_gray_scott_equals_native_to_the_bit(fma_rounds_once, height, width, dt, stencil):
    state = start(height, width)
    options = {"dt": dt, "stencil": stencil, "every": 9}  # leaves and enters every phase of the dither
    assert torch.equal(run(state, 18, "triton", **options), run(state, 18, "native", **options))


@pytest.mark.parametrize("every", [8, 10, 20])
def test_gray_scott_by_periods_equals_single_steps(monkeypatch, every):
    state, recorded = start(12, 10), []

    def record(launches):
        recorded.append(launches)
        return launches

    plain = run(state, 40, "triton", every=every)
    monkeypatch.setattr(gray_scott_kernels, "_worth_recording", lambda *_: True)
    monkeypatch.setattr(gray_scott_kernels, "_recorded", record)
    assert torch.equal(run(state, 40, "triton", every=every), plain)
    assert len(recorded) == 1


def test_gray_scott_refuses_float64():
    with pytest.raises(TypeError, match=r"float32 state, got torch\.float64.*state\.float\(\)"):
        run(start(8, 8).double(), 1, "triton")


@pytest.mark.gpu
@pytest.mark.parametrize("every", [512, 100])
def test_gray_scott_in_a_graph_equals_native_to_the_bit(every):
    state = start(64, 48)
    steps = 512 // every * every
    assert torch.equal(run(state, steps, "triton", every=every), run(state, steps, "native", every=every))


@pytest.mark.gpu
def test_gray_scott_under_a_capture_of_the_caller():
    state = start(32, 32).cuda()
    rates = torch.tensor([0.018, 0.049, 0.16, 0.08], dtype=torch.float64)[:, None].expand(4, len(state))
    rows = importlib.import_module("eqflow.ops.gray_scott").coefficients(rates, 1.0, "5-point", torch.float32).cuda()
    expected, captured = state.new_empty(2, 1, 2, 32, 32), state.new_empty(2, 1, 2, 32, 32)
    gray_scott_kernels.gray_scott(state, rows, expected, 512, False, 1.0)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=torch.cuda.Stream()):
        gray_scott_kernels.gray_scott(state, rows, captured, 512, False, 1.0)
    graph.replay()
    assert torch.equal(captured, expected)
