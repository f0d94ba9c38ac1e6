import importlib
import json
import math
from types import SimpleNamespace

import pytest
import torch

from bench.paper import cccp, clouds, densities, fields, figure2_planar, figure7_mmd, files, lyapunov_lorenz, training
from bench.paper.families import FAMILIES, RELEASED, Family
from bench.paper.report import Report, spread
from bench.paper.study import Study
from eqflow.dynamics import FlowSettings, LearnedFlow
from eqflow.metrics import random_skew_fields
from eqflow.score import Density, DensityShape

SCRIPTS = (
    "figure2_planar", "figure4_uniqueness", "figure6_score", "figure7_mmd", "lyapunov_lorenz", "table1_lorenz",
    "limit_cycle_density", "density_from_data", "cccp", "lorenz_parameters", "gene_network", "table2_gray_scott",
    "figure3_patterns", "long_rollouts", "figure5_artificial_life",
)  # fmt: skip
TINY = Family("tiny", FlowSettings(steps=8))


@pytest.fixture
def study(tmp_path):
    return Study(2, 2, 2, True, "cpu", tmp_path, files.Cache(tmp_path / ".cache"))


@pytest.fixture
def ring(study):
    return clouds.planar(study, "ring")


def parameters(study, cloud, models):
    (flow,) = training.train([training.Job(TINY, cloud, models)], study)
    return flow.parameters


def test_an_interrupted_training_goes_on_to_the_same_bits(study, ring, tmp_path, monkeypatch):
    undisturbed = Study(2, 2, 2, True, "cpu", tmp_path, files.Cache(tmp_path / "other"))
    wanted = parameters(undisturbed, ring, 3)
    monkeypatch.setattr(training, "_EVERY", 2)
    monkeypatch.setattr(files, "_SECONDS_BETWEEN_CHECKPOINTS", -1)
    advance, calls = training.Meter.advance, []

    def stop(self, work, words):
        calls.append(words)
        if len(calls) == 2:
            raise KeyboardInterrupt
        advance(self, work, words)

    monkeypatch.setattr(training.Meter, "advance", stop)
    with pytest.raises(KeyboardInterrupt):
        parameters(study, ring, 3)
    assert list(study.cache.folder.glob("*-000-003-unfinished-*"))
    found = parameters(study, ring, 3)
    assert len(calls) == 3  # two of three looks before the stop, one after
    assert torch.equal(found, wanted)
    assert not list(study.cache.folder.glob("*unfinished*"))


def test_models_that_are_there_are_not_trained_again(study, ring, monkeypatch):
    two, asked, fit_flow = parameters(study, ring, 2), [], training.fit_flow

    def fit(*arguments, **options):
        asked.append((options["first_model"], options["models"]))
        return fit_flow(*arguments, **options)

    monkeypatch.setattr(training, "fit_flow", fit)
    four = parameters(study, ring, 4)
    assert torch.equal(four[:2], two) and asked == [(2, 2)]
    kept = next(study.cache.folder.glob("flow-ring-001-*"))
    kept.write_bytes(b"damaged")
    assert torch.equal(parameters(study, ring, 4), four) and asked[1:] == [(1, 1)]


def test_a_model_that_diverges_is_left_out(study, ring, monkeypatch, capsys):
    fit_flow = training.fit_flow

    def fit(*arguments, **options):
        if options["first_model"] <= 1 < options["first_model"] + options["models"]:
            raise FloatingPointError("the loss of model 1 is not finite")
        return fit_flow(*arguments, **options)

    whole = parameters(Study(2, 2, 2, True, "cpu", study.out, files.Cache(study.out / "whole")), ring, 3)
    monkeypatch.setattr(training, "fit_flow", fit)
    assert torch.equal(parameters(study, ring, 3), whole[[0, 2]])
    assert "tiny, ring: the loss of model 1 is not finite" in capsys.readouterr().err
    monkeypatch.setattr(training, "fit_flow", lambda *_, **__: fit(first_model=1, models=1))
    with pytest.raises(FloatingPointError, match="no model of tiny on ring"):
        training.train([training.Job(TINY, clouds.planar(study, "ring", pool=500), 1)], study)


def test_other_settings_are_other_models(study, ring):
    one = training.train([training.Job(TINY, ring, 1)], study)[0]
    other = Family("tiny", FlowSettings(steps=8, probes=1))
    two = training.train([training.Job(other, ring, 1)], study)[0]
    assert not torch.equal(one.parameters, two.parameters)


def test_the_time_left_counts_what_is_left(monkeypatch, capsys):
    now = iter([0.0, 60.0])
    monkeypatch.setattr(training.time, "monotonic", lambda: next(now))
    training.Meter(4.0).advance(1.0, "a quarter")
    assert capsys.readouterr().err == "a quarter; 3.0 min of training left\n"


def test_a_file_stays_as_it_was_when_writing_fails(tmp_path):
    path = tmp_path / "results.json"
    files.write_json(path, {"nothing": math.nan, "tensor": torch.ones(2)})
    assert json.loads(path.read_text()) == {"nothing": None, "tensor": [1.0, 1.0]}

    def fail(part):
        part.write_text("half")
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        files.write_whole(path, fail)
    assert [each.name for each in tmp_path.iterdir()] == ["results.json"]
    assert json.loads(path.read_text())["tensor"] == [1.0, 1.0]


def test_a_part_that_fails_does_not_take_the_others_along(study, capsys):
    report = Report(study, "name", "Title")
    with report.part("the first"):
        raise ValueError("this one")
    with report.part("the second"):
        report.check("a number", [0.5, 0.7], ">= 0.6", low=0.6)
        report.table("Numbers", ["|cos|", "value"], [["a", spread([1.0, 3.0])], ["b", spread([2.0, math.nan])]])
    assert report.finish() == 1
    text, kept = (study.out / "name.md").read_text(), json.loads((study.out / "name.json").read_text())
    assert "the first failed: ValueError: this one" in text and "2.000 ± 1" in text and "2.000 (1 of 2)" in text
    assert kept["failed"] == ["the first"] and kept["acceptance"][0]["met"] is False
    assert {"commit", "versions", "cpu"} <= kept["machine"].keys()


def test_no_number_and_nan_are_not_met(study):
    report = Report(study, "name", "Title")
    report.check("nothing", [], "> 0", low=0)
    report.check("not a number", math.nan, "> 0", low=0)
    assert [row["met"] for row in report.checks] == [False, False]


def test_no_constant_flow_is_nearer_than_the_best_one(study):
    cloud = clouds.chaotic(study, "lorenz")
    truth, scores = cloud.truth(cloud.compared), cloud.scores(cloud.compared)
    best = fields.best_constant(truth, scores)
    close = fields.fidelity(random_skew_fields(scores, 2000, seed=0), truth)
    assert 0.99 * best < float(close.max()) <= best + 1e-12
    assert abs(float(close.mean()) / best - 0.5) < 0.03  # uniform from 0 to the best


def test_a_cloud_has_the_units_it_says(study):
    cloud = clouds.chaotic(study, "lorenz")
    torch.testing.assert_close(cloud.points.std(0), torch.ones(3))
    raw = cloud.mean + cloud.sd * cloud.compared
    torch.testing.assert_close(cloud.truth(cloud.compared) * cloud.sd, cloud.system.velocity(raw))
    assert clouds.planar(study, "two-gaussians").points.std(0)[0] > 1.05  # as it is


def test_pairs_and_fidelity_of_known_fields():
    one = torch.tensor([[[1.0, 0.0]], [[0.0, 2.0]], [[-1.0, 1.0]]])
    torch.testing.assert_close(fields.pairs(one), torch.tensor([0.0, 0.5**0.5, 0.5**0.5]).double())
    torch.testing.assert_close(fields.fidelity(one, one[0]), torch.tensor([1.0, 0.0, 0.5**0.5]).double())
    assert len(fields.pairs(one[:1])) == 0


def test_only_two_strong_vortices_of_opposite_sense_count():
    curls = torch.tensor([[4.7, -4.6], [4.7, 4.6], [4.7, -0.3]])
    assert figure2_planar.opposite(curls).tolist() == [True, False, False]


def test_labels_that_agree_have_the_index_one():
    one = torch.tensor([0, 0, 0, 1, 1, 2])
    assert cccp.rand_index(one, torch.tensor([2, 2, 2, 0, 0, 1])) == 1
    # By hand, of 15 pairs: 2 are together in both, 4 in one and 7 in the other.
    expected = (2 - 4 * 7 / 15) / ((4 + 7) / 2 - 4 * 7 / 15)
    assert cccp.rand_index(one, torch.tensor([0, 0, 1, 1, 1, 1])) == pytest.approx(expected)
    random = torch.randint(0, 5, (2, 20_000), generator=torch.Generator().manual_seed(0))
    assert abs(cccp.rand_index(*random)) < 0.005


def test_the_gap_between_two_gaussians():
    truth = SimpleNamespace(
        log_density=lambda x: -x.square().sum(1) / 0.32 - math.log(0.32 * math.pi), score=lambda x: -x / 0.16
    )
    for shift in (0.0, 0.2):
        other = Density(DensityShape(2, 1), torch.tensor([[shift, 0.0]], dtype=torch.float64), 0.4)
        found = densities.gap(truth, other)
        assert found.divergence == pytest.approx(shift**2 / 0.32, abs=1e-8)
        assert found.fisher == pytest.approx(shift**2 / 0.16**2, abs=1e-6)
        assert found.variation == pytest.approx(math.erf(shift / 0.4 / 8**0.5), abs=1e-3)
        assert found.mass == pytest.approx(1, abs=1e-8)


def test_points_that_leave_every_bound_count_as_far(study):
    start = torch.randn(200, 3, generator=torch.Generator().manual_seed(0))
    seen = figure7_mmd.follow(start, lambda x: torch.where(x[:, :1] > 0, x * 1e4, 0 * x), 5)
    assert seen.roots[-1] > 0.2 and all(math.isfinite(root) for root in seen.roots)
    still = figure7_mmd.follow(start, lambda x: 0 * x, 5)
    assert still.roots == [0.0] * len(still.roots)


def test_the_exponents_of_a_learned_flow_sum_to_its_divergence(study):
    flow = LearnedFlow.random(3, FlowSettings(hidden=(16, 16)), models=7, seed=0)
    starts = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)).double()
    found = lyapunov_lorenz.spectra(flow, starts, 2.0, 0.5)
    assert found.exponents.shape == (7, lyapunov_lorenz.WINDOWS, 3) and float(found.sum_error.abs().max()) < 1e-5
    single = lyapunov_lorenz.spectra(flow[6], starts, 2.0, 0.5)
    torch.testing.assert_close(single.exponents[0], found.exponents[6])


def test_the_published_protocol_is_the_published_one():
    settings = RELEASED.settings
    assert (settings.steps, settings.rows, settings.probes, settings.hidden) == (12_800, 2048, 10, (64, 64))
    assert FAMILIES["paper"].settings.objective == "sampled" and FAMILIES["best"].parity == "even"


def run_script(name, out, capsys, *more):
    script = importlib.import_module(f"bench.paper.{name}")
    script.main(["--quick", "--out", str(out), *more])
    printed = capsys.readouterr().out
    kept = json.loads((out / f"{name}.json").read_text())
    assert kept["failed"] == [] and kept["quick"] and kept["figures"]
    assert (out / f"{name}.png").read_bytes()[:4] == b"\x89PNG"
    assert (out / f"{name}.md").read_text() in printed
    assert not [path for path in out.iterdir() if path.suffix in (".tmp", ".part")]
    return kept


def test_a_script_leaves_three_files_and_keeps_its_models(tmp_path, capsys, monkeypatch):
    first = run_script("figure4_uniqueness", tmp_path, capsys)
    monkeypatch.setattr(training, "fit_flow", None)  # would fail: nothing is trained again
    assert run_script("figure4_uniqueness", tmp_path, capsys)["figures"] == first["figures"]


@pytest.mark.slow
@pytest.mark.parametrize("name", SCRIPTS)
def test_every_script_runs(name, tmp_path, capsys):
    kept = run_script(name, tmp_path, capsys)
    assert kept["acceptance"]
