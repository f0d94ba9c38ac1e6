"""The Gray-Scott system against closed forms, its starts and its presets."""

import hashlib
import math

import pytest
import torch

from eqflow.ops import philox
from eqflow.ops.gray_scott import stability_limit
from eqflow.systems.gray_scott import (
    GOLDEN,
    INITIAL_KINDS,
    PRESETS,
    GrayScott,
    growth_matrix,
    initial_state,
    is_dead,
    preset,
    rescale,
    steady_states,
)

STABLE = GrayScott(feed=0.04, kill=0.04)


def uniform(values, height, width, dtype=torch.float32):
    return torch.as_tensor(values, dtype=dtype).view(1, 2, 1, 1).expand(1, 2, height, width).contiguous()


def discs(samples, size=64, **arguments):
    return initial_state("discs", torch.arange(samples), size, size, seed=5, **arguments)


def test_steady_states_solve_the_equations():
    for feed, kill in ((0.04, 0.04), (0.018, 0.049), (0.007, 0.028), (0.01, 0.04)):
        u, v = steady_states(feed, kill).unbind(1)
        assert (u * v * v - feed * (1 - u)).abs().max() < 1e-15
        assert (u * v * v - (feed + kill) * v).abs().max() < 1e-15
    torch.testing.assert_close(steady_states(0.04, 0.04)[1], torch.tensor([0.2, 0.4], dtype=torch.float64))


@pytest.mark.parametrize(("name", "count"), [("life", 1), ("maze", 1), ("wave", 3), ("spirals", 3)])
def test_number_of_steady_states(name, count):
    system = PRESETS[name].parameters
    assert len(steady_states(system.feed, system.kill)) == count


def test_no_reaction_has_the_trivial_state_only():
    assert steady_states(0, 0).tolist() == [[1, 0]]


def test_stable_homogeneous_state_stays():
    start = uniform([0.2, 0.4], 17, 23)
    assert (STABLE.run(start, 10_000) - start).abs().max() < 3e-7


def test_noise_on_the_stable_state_dies_out():
    start = uniform([0.2, 0.4], 32, 33)
    noisy = start + 0.01 * torch.randn(start.shape, generator=torch.Generator().manual_seed(0))
    assert (STABLE.run(noisy, 1000) - start).abs().max() < 1e-6


@pytest.mark.parametrize("stencil", ["5-point", "9-point"])
@pytest.mark.parametrize("mode", [(0, 1), (2, 0), (2, 3), (12, 10)])
def test_linear_growth_of_a_mode(mode, stencil):
    height, width, steps, amplitude = 24, 20, 50, 1e-6
    system = GrayScott(0.018, 0.049, stencil=stencil)
    steady = steady_states(0.018, 0.049)[1]
    rows, columns = torch.arange(height).double()[:, None] / height, torch.arange(width).double() / width
    wave = torch.cos(2 * math.pi * (mode[0] * rows + mode[1] * columns))
    direction = torch.tensor([1.0, -0.5], dtype=torch.float64)
    base = uniform(steady, height, width, torch.float64)
    end = system.run(base + amplitude * direction.view(1, 2, 1, 1) * wave, steps)
    measured = ((end - base) * wave).sum((0, 2, 3)) / wave.square().sum()
    matrix = growth_matrix(system, steady, mode, (height, width))
    expected = amplitude * torch.linalg.matrix_power(matrix, steps) @ direction
    torch.testing.assert_close(measured, expected, rtol=1e-7, atol=1e-15)


def test_without_v_the_rest_decays_linearly():
    height, width, steps = 20, 24, 200
    system = GrayScott(0.029, 0.057)
    start = torch.zeros(1, 2, height, width, dtype=torch.float64)
    start[:, 0] = torch.rand(height, width, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    end = system.run(start, steps)
    assert not end[:, 1].any()
    before, after = torch.fft.fft2(1 - start[0, 0]), torch.fft.fft2(1 - end[0, 0])
    for mode in ((0, 0), (1, 0), (3, 5), (10, 12)):
        factor = growth_matrix(system, torch.tensor([1.0, 0.0]), mode, (height, width))[0, 0] ** steps
        torch.testing.assert_close(after[mode], factor * before[mode], rtol=1e-9, atol=1e-11)


def test_without_feed_and_kill_the_sum_is_conserved():
    start = discs(2)
    end = GrayScott(0.0, 0.0).run(start, 1000)
    assert not torch.equal(start, end)
    assert abs(float(end.double().sum() / start.double().sum()) - 1) < 1e-6


@pytest.mark.parametrize(
    "move",
    [
        lambda s: s.roll((5, -11), (2, 3)),
        lambda s: s.transpose(2, 3),
        lambda s: s.flip(2, 3),
    ],
    ids=["translation", "transposition", "half-turn"],
)
def test_symmetry_to_the_bit(move):
    start, system = discs(2), PRESETS["wave"].parameters
    assert torch.equal(system.run(move(start).contiguous(), 1000), move(system.run(start, 1000)))


def test_only_the_ratio_of_diffusion_and_spacing_matters():
    start = discs(2)
    coarse = GrayScott(0.029, 0.057, 0.64, 0.32, dx=2.0)
    assert torch.equal(coarse.run(start, 100), GrayScott(0.029, 0.057).run(start, 100))
    system, factor = rescale(coarse, 0.08)
    assert (system.diffusion_u, system.diffusion_v, system.dx) == pytest.approx((0.08, 0.04, 1.0))
    assert factor == pytest.approx(math.sqrt(0.5))


def wavelength(state):
    """The mean wavelength of v, in pixels."""
    size = state.shape[-1]
    waves = torch.fft.fftfreq(size).square()
    power = torch.fft.fft2(state[:, 1] - state[:, 1].mean((1, 2), keepdim=True)).abs().square().mean(0)
    return float(power.sum() / (power * (waves[:, None] + waves).sqrt()).sum())


def test_rescaled_patterns_have_the_length_promised():
    start = discs(4, 96)
    system = GrayScott(0.029, 0.057, 0.08192, 0.04096)
    larger, factor = rescale(system, 0.16)
    assert factor == pytest.approx(1.3975, abs=1e-3)
    measured = wavelength(larger.run(start, 4000)) / wavelength(system.run(start, 4000))
    assert measured == pytest.approx(factor, rel=0.05)


def test_dead_is_a_homogeneous_v():
    state = uniform([0.2, 0.4], 16, 16).repeat(3, 1, 1, 1)
    state[1, 1, ::2] += 0.003  # standard deviation 0.0015
    state[2, 0, ::2] += 0.1
    assert is_dead(state).tolist() == [True, False, True]


# ---- presets


def test_presets_are_whole():
    assert {"life", "wave", "spirals", "maze", "well-gliders", "pearson-alpha", "rougier-coral"} <= set(PRESETS)
    assert set(GOLDEN) == {"life", "wave", "spirals", "maze"}
    assert {entry.character for entry in PRESETS.values()} == {"moving", "static", "dead"}
    assert sum(entry.character == "dead" for entry in PRESETS.values()) == 7
    for entry in PRESETS.values():
        system = entry.parameters
        rows = torch.tensor([[system.feed], [system.kill], [system.diffusion_u], [system.diffusion_v]])
        assert system.dt < stability_limit(rows)
        assert entry.source


@pytest.mark.parametrize(("name", "close"), [("waves", "wave"), ("gliders", "well-gliders"), ("pearson-alfa", "alpha")])
def test_unknown_preset_lists_what_comes_close(name, close):
    with pytest.raises(ValueError, match=rf"no Gray-Scott preset '{name}'.*{close}.*PRESETS"):
        preset(name)


# ---- starts


def naive_discs(sample, height, width, seed, attempt):
    words = philox.words(torch.tensor([sample]), 15, seed=seed, step=attempt, stream=1)[0].tolist()
    state = torch.stack([torch.ones(height, width), torch.zeros(height, width)])
    for radius_word, row_word, column_word in zip(words[0::3], words[1::3], words[2::3], strict=True):
        radius = 3 + (radius_word * 5 >> 32)
        row = radius + (row_word * (height - 2 * radius) >> 32)
        column = radius + (column_word * (width - 2 * radius) >> 32)
        for y in range(height):
            for x in range(width):
                if (y - row) ** 2 + (x - column) ** 2 < radius**2:
                    state[0, y, x], state[1, y, x] = 0.5, 0.25
    return state


@pytest.mark.parametrize(("height", "width"), [(15, 15), (16, 41), (40, 23)])
def test_discs_are_the_paper_protocol(height, width):
    samples = torch.tensor([0, 3, 4_294_967_295])
    state = initial_state("discs", samples, height, width, seed=7, attempt=2)
    expected = [naive_discs(sample, height, width, 7, 2) for sample in samples.tolist()]
    assert torch.equal(state, torch.stack(expected))


def test_discs_cover_what_probability_says():
    samples, size = 4000, 24
    covered = (initial_state("discs", torch.arange(samples), size, size, seed=1)[:, 1] > 0).float()
    inside = torch.zeros(size, size)
    grid = torch.arange(size)
    for radius in range(3, 8):
        centres = grid[radius : size - radius]
        distance = (grid[:, None] - centres) ** 2
        hit = distance[:, None, :, None] + distance[None, :, None, :] < radius**2
        inside += hit.float().mean((2, 3)) / 5
    probability = 1 - (1 - inside) ** 5
    error = (covered.mean(0) - probability) / (probability * (1 - probability) / samples).sqrt().clamp_min(1e-3)
    assert error.abs().max() < 5
    assert abs(float(error.mean())) < 0.5


def test_squares_have_exact_areas():
    state = initial_state("squares", torch.arange(400), 100, 100, seed=3)
    area = (state[:, 1] > 0).sum((1, 2))
    assert set(state[:, 0].unique().tolist()) == {0.5, 1.0}
    assert area.min() >= 36 and area.max() <= 8 * 400
    single = [int(a) for a in area if math.isqrt(int(a)) ** 2 == int(a) and a <= 400]
    assert len(single) > 25  # an eighth of the samples has one square
    # The expected coverage of a cell: 1 - mean over the count of (1 - mean side^2 / cells)^count.
    hit = sum(side**2 for side in range(6, 21)) / 15 / 100**2
    expected = 1 - sum((1 - hit) ** count for count in range(1, 9)) / 8
    covered = area.double() / 100**2
    assert abs(float(covered.mean()) - expected) < 4 * float(covered.std()) / 20


def test_square_is_in_the_centre():
    state = initial_state("square", torch.arange(2), 33, 40, seed=0)
    rows, columns = (state[0, 1] > 0).nonzero().unbind(1)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (6, 25, 10, 29)
    assert not torch.equal(state[0], state[1])
    assert state[0, 0, 6:26, 10:30].min() > 0.4 and state[0, 0, 6:26, 10:30].max() < 0.6


def test_fourier_starts_around_the_steady_state():
    system = GrayScott(0.04, 0.04)
    state = initial_state("fourier", torch.arange(64), 32, 24, seed=0, parameters=system)
    base = torch.tensor([0.2, 0.4])
    torch.testing.assert_close(state.mean((0, 2, 3)), base, rtol=1e-3, atol=0)
    relative = (state / base.view(1, 2, 1, 1) - 1).square().mean().sqrt()
    assert abs(float(relative) - 0.1) < 0.01
    mixed = initial_state("fourier", torch.arange(2), 32, 24, seed=0, parameters=[system, PRESETS["maze"].parameters])
    assert torch.equal(mixed[0], state[0])
    torch.testing.assert_close(mixed[1].mean((1, 2)), torch.tensor([0.5, 0.25]), rtol=1e-3, atol=0)


@pytest.mark.parametrize("kind", INITIAL_KINDS)
def test_starts_depend_on_seed_sample_and_attempt_only(kind, monkeypatch):
    def make(samples, seed=9, **more):
        return initial_state(kind, samples, 30, 25, seed=seed, parameters=STABLE, **more)

    whole = make(torch.arange(40))
    assert whole.shape == (40, 2, 30, 25) and whole.dtype == torch.float32
    assert whole.min() >= 0 and whole.max() <= 1
    assert torch.equal(make(torch.tensor([31, 7])), whole[[31, 7]])
    monkeypatch.setattr("eqflow.systems.gray_scott.starts._CHUNK_CELLS", 1)
    assert torch.equal(make(torch.arange(20, 30)), whole[20:30])
    for other in (make(torch.arange(40), attempt=1), make(torch.arange(40), seed=10), make(torch.arange(40, 80))):
        assert not torch.equal(other, whole)


BITS = {
    "discs": "cb926d4d14d010dc",
    "squares": "402866f394f97350",
    "square": "75214ed48f0ca35e",
    "blobs": "d9267dd1e8fc07d3",
    "fourier": "2f6f3eb812f4a783",
}


@pytest.mark.parametrize("kind", INITIAL_KINDS)
def test_starts_have_the_bits_on_record(kind):
    state = initial_state(kind, torch.tensor([0, 1, 1000]), 33, 40, seed=2**63 + 1, attempt=3, parameters=STABLE)
    assert hashlib.sha256(state.numpy().tobytes()).hexdigest()[:16] == BITS[kind]


def test_no_samples():
    assert initial_state("discs", torch.arange(0), 20, 20, seed=0).shape == (0, 2, 20, 20)


def test_bad_starts_are_refused():
    with pytest.raises(ValueError, match="expected a start among discs"):
        initial_state("disks", torch.arange(1), 32, 32, seed=0)
    with pytest.raises(ValueError, match="needs at least 15 x 15 cells so that discs of radius 7 fit, got 14 x 99"):
        initial_state("discs", torch.arange(1), 14, 99, seed=0)
    with pytest.raises(ValueError, match="needs parameters"):
        initial_state("fourier", torch.arange(1), 32, 32, seed=0)
    with pytest.raises(ValueError, match="seed"):
        initial_state("discs", torch.arange(1), 32, 32, seed=-1)


# ---- what the presets do, at full length


@pytest.mark.slow
@pytest.mark.parametrize("name", GOLDEN)
def test_golden_statistics(name):
    golden, samples = GOLDEN[name], 128
    end = PRESETS[name].parameters.run(discs(samples, 128), 10_000)
    alive = end[~is_dead(end)].double()
    assert len(alive) >= samples * golden.alive / golden.samples - 5
    means = alive.mean((2, 3))
    for field, mean, spread in ((0, golden.mean_u, golden.spread_u), (1, golden.mean_v, golden.spread_v)):
        error = (float(means[:, field].mean()) - mean) / (spread / math.sqrt(len(alive)))
        print(f"{name}: mean of {'uv'[field]} {means[:, field].mean():.5f}, {error:+.2f} standard errors")
        assert abs(error) < 3
    deviation = alive.std((0, 2, 3), correction=0)
    torch.testing.assert_close(deviation, torch.tensor([golden.std_u, golden.std_v]).double(), rtol=0.04, atol=0)


@pytest.mark.slow
@pytest.mark.parametrize("name", PRESETS)
def test_character_of_a_preset(name):
    entry = PRESETS[name]
    kinds = ("fourier",) if "fourier" in entry.note else ("discs", "squares")
    arguments = {"seed": 1, "parameters": entry.parameters}
    starts = [initial_state(kind, torch.arange(4), 128, 128, **arguments) for kind in kinds]
    end = entry.parameters.run(torch.cat(starts), 10_000)
    assert bool(is_dead(end).all()) == (entry.character == "dead")
