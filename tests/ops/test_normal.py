import pytest
import torch

from eqflow import ops
from eqflow.ops import philox
from eqflow.ops._backend import native_module

SEED = 0x0123456789ABCDEF
GOLDEN = ["bf049d24", "3ed64443", "bf7b6f93", "3f261cf7", "3f6b7340", "3f7a7c5c", "3ff5df49", "be9f81e3"]


def bits(values):
    return [f"{b & 0xFFFFFFFF:08x}" for b in values.flatten().view(torch.int32).tolist()]


@pytest.mark.parametrize(
    "counter, seed, words",
    [
        ([0, 0, 0, 0], 0, "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ([0xFFFFFFFF] * 4, 2**64 - 1, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            0x299F31D0A4093822,
            "d16cfe09 94fdcceb 5001e420 24126ea1",
        ),
    ],
)
def test_philox_gives_the_known_answers_of_random123(counter, seed, words):
    four = philox.philox(tuple(torch.tensor([c]) for c in counter), seed)
    assert " ".join(f"{int(word):08x}" for word in four) == words


def test_words_follow_the_counter_layout():
    words = philox.words(torch.tensor([3]), 8, seed=SEED, step=2**32 + 5, stream=2)[0]
    expected = "cd166913 645067ac 8009a92c 68366acc 67e940d0 2142a00e 268aec03 f972f2b6"
    assert " ".join(f"{int(word):08x}" for word in words) == expected


def test_golden_bits(isa):
    normals = ops.normal(1, 8, seed=SEED, step=2**32 + 5, stream=2, first_sample=3, backend="native")
    assert bits(normals) == [
        "bf049d24",
        "3ed64443",
        "bf7b6f93",
        "3f261cf7",
        "3f6b7340",
        "3f7a7c5c",
        "3ff5df49",
        "be9f81e3",
    ]


def test_golden_hash_of_a_long_row(isa):
    h = 1469598103934665603
    for value in ops.normal(1, 2**18, seed=SEED, stream=2, backend="native").view(torch.int32)[0].tolist():
        h = (h ^ (value & 0xFFFFFFFF)) * 1099511628211 % 2**64
    assert h == 0x783515A045875DE7


@pytest.mark.parametrize(
    "batch, sites", [(1, 1), (3, 2), (2, 3), (1000, 5), (5, 127), (2, 4096), (3, 4099), (0, 7), (7, 0)]
)
def test_every_instruction_set_agrees_with_the_reference(isa, batch, sites):
    arguments = dict(seed=2**63 + 11, step=2**40 + 1, stream=7, first_sample=2**31)
    native = ops.normal(batch, sites, backend="native", **arguments)
    reference = ops.normal(batch, sites, backend="reference", **arguments)
    assert native.shape == (batch, sites) and native.dtype == torch.float32
    assert native.numel() == 0 or (native - reference).abs().max() <= 1e-6


@pytest.mark.parametrize("sites", [3, 64, 4099])
def test_bits_do_not_depend_on_instruction_set_threads_or_split(sites, threads):
    module = native_module()
    whole = ops.normal(600, sites, seed=1, step=9, backend="native")
    before = module.cpu_isa()
    for isa in module.cpu_isas():
        module.set_cpu_isa(isa)
        for count in (1, 2, 3):
            threads(count)
            parts = [ops.normal(200, sites, seed=1, step=9, first_sample=s, backend="native") for s in (0, 200, 400)]
            assert torch.equal(torch.cat(parts), whole)
    module.set_cpu_isa(before)


def test_a_shorter_sample_is_the_beginning_of_a_longer_one():
    assert torch.equal(ops.normal(4, 33, seed=5), ops.normal(4, 1000, seed=5)[:, :33])


@pytest.mark.parametrize("change", ["seed", "step", "stream", "first_sample"])
def test_every_part_of_the_counter_matters(change):
    base = dict(seed=1, step=1, stream=1, first_sample=1)
    other = ops.normal(1, 4096, **(base | {change: 2}))
    correlation = (ops.normal(1, 4096, **base) * other).mean()
    assert abs(correlation) < 5 / 64


def test_moments():
    normals = ops.normal(16, 2**20, seed=3).double()
    moments = [(normals**power).mean().item() for power in (1, 2, 3, 4)]
    assert moments == pytest.approx([0, 1, 0, 3], abs=0.01)
    assert moments[:3] == pytest.approx([0, 1, 0], abs=3e-3)
    assert normals.abs().max() < 5.77


def test_neighbours_in_every_direction_are_independent():
    normals = ops.normal(1000, 1000, seed=8)
    later = ops.normal(1000, 1000, seed=8, step=1)
    pairs = [(normals[:, 1:], normals[:, :-1]), (normals[1:], normals[:-1]), (normals, later)]
    assert all(abs((a * b).mean()) < 5e-3 for a, b in pairs)


def test_the_operator_is_registered_properly():
    arguments = (3, 5, 1, 0, 0, 0, torch.device("cpu"), "native")
    torch.library.opcheck(torch.ops.eqflow.normal.default, arguments)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(batch=-1), "expected batch"),
        (dict(sites=2**34 + 1), "expected sites"),
        (dict(seed=2**64), "expected seed"),
        (dict(step=-1), "expected step"),
        (dict(stream=256), "expected stream"),
        (dict(first_sample=2**32), "expected first_sample|expected batch"),
    ],
)
def test_numbers_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        ops.normal(**(dict(batch=1, sites=1, seed=0) | arguments))


def test_an_unavailable_backend_lists_them_all(monkeypatch):
    with pytest.raises(ops.BackendError, match="expected backend 'auto', 'reference', 'native', 'triton', got 'cuda'"):
        ops.normal(1, 1, seed=0, backend="cuda")
    if not torch.cuda.is_available():
        with pytest.raises(ops.BackendError, match="this PyTorch sees 0"):
            ops.normal(1, 1, seed=0, device="cuda")


@pytest.mark.gpu
@pytest.mark.parametrize("backend", ["native", "triton"])
@pytest.mark.parametrize("batch, sites", [(1, 1), (1000, 5), (3, 4099), (64, 32768)])
def test_gpu_gives_the_bits_of_the_cpu(backend, batch, sites):
    arguments = dict(seed=SEED, step=2**32 + 5, stream=2, first_sample=3)
    on_gpu = ops.normal(batch, sites, device="cuda", backend=backend, **arguments)
    assert torch.equal(on_gpu.cpu(), ops.normal(batch, sites, **arguments))
