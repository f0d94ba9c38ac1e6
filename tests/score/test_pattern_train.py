import itertools
import math
import subprocess
import sys

import pytest
import torch

from eqflow.metrics import denoising_report
from eqflow.score import PatternShape, PatternTraining, Simulated, Stored, train_pattern
from eqflow.score.pattern_train import transformed
from eqflow.systems.gray_scott import preset

SMALL = PatternShape(width=8, dilations=(1, 1), first=5)
QUICK = PatternTraining(steps=24, every=8, warm_up=4)


def smooth(count=40, size=16, seed=0):
    """Gaussian fields of long waves, two channels of which the second follows the first."""
    white = torch.randn(count, 2, size, size, generator=torch.Generator().manual_seed(seed))
    waves = torch.fft.fftfreq(size) * size
    response = (-(waves[:, None].square() + waves.square()) / 8).exp()
    fields = torch.fft.ifft2(torch.fft.fft2(white) * response).real
    fields[:, 1] = 0.5 * fields[:, 0] + 0.2 * fields[:, 1] - 0.3
    return (fields / fields.std()).contiguous()


def stored(**changes):
    return Stored(smooth(), **{"held_out": 8, "seed": 3, **changes})


def same(first, second):
    return all(torch.equal(first[name], second[name]) for name in first) and first.keys() == second.keys()


def test_training_lowers_the_error_below_the_trivial_denoiser():
    fields = stored()
    fit = train_pattern(fields, SMALL, PatternTraining(steps=300, every=100, warm_up=10))
    deviation = fields.reference(32).std((0, 2, 3))
    sigma = fit.denoiser.sigma
    trivial = float((sigma**2 * deviation**2 / (sigma**2 + deviation**2)).mean())
    assert fit.history[-1, 2] < 0.6 * trivial
    assert (fit.history[1:, 2] < fit.history[:-1, 2]).all()


def test_a_stop_at_any_step_changes_no_bit():
    whole = train_pattern(stored(), SMALL, QUICK)
    for stop in (1, 5, 8, 13, 23):
        kept = []

        class Killed(Exception):
            pass

        def watch(step, stop=stop):
            return step == stop

        def save(state, stop=stop, kept=kept):
            kept.append(state)
            if int(state["step"]) == stop:
                raise Killed

        with pytest.raises(Killed):
            train_pattern(stored(), SMALL, QUICK, save=save, watch=watch)
        assert same(train_pattern(stored(), SMALL, QUICK, state=kept[-1]).state, whole.state), stop


def test_a_checkpoint_of_another_training_is_refused():
    state = train_pattern(stored(), SMALL, QUICK).state
    others = [(stored(seed=4), SMALL, QUICK), (stored(), PatternShape(width=4), QUICK),
              (stored(), SMALL, PatternTraining(steps=24, every=8, warm_up=4, rate=1e-3))]  # fmt: skip
    for fields, shape, training in others:
        with pytest.raises(ValueError, match="one of other points"):
            train_pattern(fields, shape, training, state=state)


def test_the_caller_s_random_numbers_are_left_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    train_pattern(stored(), SMALL, PatternTraining(steps=1))
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("symmetry", range(8))
def test_the_symmetries_are_the_eight_of_the_square(symmetry):
    field = torch.randn(1, 1, 5, 5)
    seen = transformed(field, symmetry)
    turned = [field.rot90(turns, (2, 3)) for turns in range(4)]
    every = [*turned, *(one.flip(3) for one in turned)]
    assert sum(torch.equal(seen, one) for one in every) == 1
    assert len({tuple(transformed(field, other).flatten().tolist()) for other in range(8)}) == 8


@pytest.mark.parametrize(
    "shape, training",
    [
        (PatternShape(width=8, dilations=(1, 2), first=5), {"precision": "bfloat16"}),
        (PatternShape(width=8, dilations=(1,), alpha=None), {"levels": (-1.0, 0.5)}),
        (PatternShape(width=8, dilations=(1,), precondition="v"), {}),
        (PatternShape(width=8, dilations=(1,), precondition="x0"), {"symmetries": "flips"}),
        (PatternShape(width=8, dilations=(1,), conservative=True), {}),
        (PatternShape(width=8, dilations=(1,)), {"shifts": True, "precision": "bfloat16", "symmetries": "none"}),
    ],
    ids=["dilated", "every level", "v", "x0", "conservative", "shifted"],
)
def test_every_variant_learns(shape, training):
    training = PatternTraining(steps=150, every=30, warm_up=10, **training)
    fit = train_pattern(stored(), shape, training)
    assert fit.history[-1, 2] < 0.95 * fit.history[0, 2]
    assert not any(weight.requires_grad for weight in fit.denoiser.parameters())


def test_several_channels_and_grids_that_are_no_squares():
    fields = torch.cat([smooth(size=12)] * 2, 1)[:, :3, :, :10].contiguous()
    shape = PatternShape(3, width=4, dilations=(1,), first=3)
    with pytest.raises(ValueError, match="square fields with symmetries 'square', got 12 x 10: take 'flips'"):
        train_pattern(Stored(fields, held_out=4, seed=0), shape, QUICK)
    flips = PatternTraining(steps=4, symmetries="flips")
    assert train_pattern(Stored(fields, held_out=4, seed=0), shape, flips).denoiser(fields).shape == fields.shape


def test_a_gradient_that_is_no_number_names_the_layer():
    with pytest.raises(FloatingPointError, match=r"network\.\w+.* is not finite at step"):
        train_pattern(stored(), SMALL, PatternTraining(steps=200, rate=1e30, warm_up=0))


@pytest.mark.parametrize(
    "fields, error, words",
    [
        (torch.zeros(4, 2, 8, 8, dtype=torch.float64), TypeError, "float32 fields"),
        (torch.zeros(4, 8, 8), ValueError, r"\[samples, channels, height, width\]"),
        (torch.zeros(2, 2, 8, 8), ValueError, "more fields than the 3 that are held out, got 2"),
        (torch.full((4, 2, 8, 8), math.nan), ValueError, "sample 0 has NaN"),
    ],
)
def test_fields_that_cannot_be_learned_from_are_refused(fields, error, words):
    with pytest.raises(error, match=words):
        Stored(fields, held_out=3, seed=0)


@pytest.mark.parametrize("name, value", [("steps", 0), ("batch", 0), ("rate", -1.0), ("symmetries", "hexagon"),
                                         ("precision", "float16"), ("average", 2.0)])  # fmt: skip
def test_options_out_of_range_are_refused(name, value):
    with pytest.raises(ValueError, match=f"expected {name}"):
        PatternTraining(**{name: value})


def test_simulated_fields_are_those_of_their_numbers_and_never_seen_twice():
    wave = preset("wave").parameters
    simulated = Simulated(wave, 32, 32, steps=200, held_out=3, seed=1)
    together = simulated.draw(range(0, 4))
    assert torch.equal(together[2:], simulated.draw(range(2, 4)))
    everything = torch.cat([simulated.apart, together])
    assert all(not torch.equal(one, other) for one, other in itertools.combinations(everything, 2))
    assert float(everything.min()) >= -1.0 and float(everything.max()) <= 1.0
    assert torch.equal(simulated.reference(4), together)


def test_training_on_simulated_fields_goes_on_to_the_same_bits():
    def fields():
        return Simulated(preset("wave").parameters, 32, 32, steps=100, held_out=3, seed=1)

    states = []
    training = PatternTraining(steps=6, every=3)
    train_pattern(fields(), SMALL, training, save=states.append)
    again = train_pattern(fields(), SMALL, training, state=states[0])
    assert same(again.state, states[-1])


ONE_OF_TWO = """
import sys
import torch
from eqflow.score import PatternShape, PatternTraining, Stored, train_pattern

rank, folder = int(sys.argv[1]), sys.argv[2]
torch.set_num_threads(1)
torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
fields = Stored(torch.load(f"{folder}/fields.pt"), held_out=8, seed=3)
shape = PatternShape(width=8, dilations=(1, 1), first=5)
fit = train_pattern(fields, shape, PatternTraining(steps=40, every=20, batch=4))
torch.save(fit.state, f"{folder}/{rank}.pt")
torch.distributed.destroy_process_group()
"""


def test_two_processes_train_as_one(tmp_path):
    torch.save(smooth(), tmp_path / "fields.pt")
    command = [sys.executable, "-c", ONE_OF_TWO]
    both = [subprocess.Popen([*command, str(rank), str(tmp_path)]) for rank in range(2)]
    assert [process.wait(timeout=120) for process in both] == [0, 0]
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    assert same(first, second)
    one = train_pattern(stored(), SMALL, PatternTraining(steps=40, every=20, batch=4)).state
    torch.testing.assert_close(first["history"], one["history"], rtol=1e-3, atol=0)


@pytest.mark.slow
def test_a_minute_of_training_beats_the_best_linear_filter_in_both_channels():
    fields = Simulated(preset("wave").parameters, 64, 64, held_out=64, seed=0)
    fit = train_pattern(fields, PatternShape(), PatternTraining(steps=1200, every=1200))
    found = denoising_report(fit.denoiser, fields.apart, fit.denoiser.sigma, train=fields.reference(512))
    assert (found.ratio + 3 * found.ratio_standard_error < 0.8).all()
