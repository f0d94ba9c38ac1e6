"""Which terms: where the library nearly depends on itself, and where the data leave a choice."""

import dataclasses
import itertools
import math

import pytest
import torch

from eqflow.fokker_planck import eliminate, estimate, fields, sparsest
from eqflow.fokker_planck.estimate import Subset
from eqflow.fokker_planck.fields import field_form, field_model
from eqflow.fokker_planck.sparsest import score

CUBIC = field_model(fields.polynomial("u v", 3))
OPTIONS = {"cut": 1e-10, "rounds": 4}


def circling(count, seed, spread=0.1, size=8):
    """Cells that turn at the rate 1 on nearly the same circle, on which u = u (u^2 + v^2) nearly."""
    uniform = torch.rand(count, 2, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    radius, phase = 1 + spread * (uniform[:, 0] - 0.5), 2 * math.pi * uniform[:, 1]
    return torch.stack([radius * phase.cos(), radius * phase.sin()], 1).float()


def conditions(count, seed):
    return Subset.fixing(field_form(circling(count, seed), CUBIC), {"v in du/dt": -1.0})


@pytest.mark.parametrize("seed", range(3))
def test_terms_are_found_where_elimination_goes_wrong(seed):
    """u' = -v, v' = u out of 20 terms."""
    rows = conditions(300, seed)
    assert len(eliminate(rows, **OPTIONS).names) > 1
    selection = sparsest(rows, **OPTIONS)
    assert selection.fit.names == ("u in dv/dt",) and not selection.rivals and not str(selection)
    assert selection.fit.coefficients.item() == pytest.approx(1, abs=5 * selection.fit.standard_errors.item())


def test_the_search_finds_the_best_of_all_sets():
    """Six candidates have 63 sets, each of which is tried."""
    rows = Subset(conditions(120, seed=0), (0, 1, 2, 10, 11, 12))
    sets = (kept for size in range(1, 7) for kept in itertools.combinations(range(6), size))
    least = min(score(estimate(Subset(rows, kept), **OPTIONS), 120, 4.0) for kept in sets)
    assert score(sparsest(rows, **OPTIONS).fit, 120, 4.0) == pytest.approx(least, rel=1e-9)


def test_what_the_data_leave_open_is_named():
    """Two columns that differ by noise explain the target alike."""
    generator = torch.Generator().manual_seed(0)
    form = field_form(circling(200, seed=0), CUBIC)
    place = {name: k for k, name in enumerate(form.names)}
    matrix = form.matrix.clone()
    column = matrix[:, :, place["u in dv/dt"]]
    twin = column + 0.05 * column.std() * torch.randn(column.shape, dtype=torch.float64, generator=generator)
    matrix[:, :, place["1 in dv/dt"]] = twin
    rows = Subset.fixing(dataclasses.replace(form, matrix=matrix), {"v in du/dt": -1.0})
    few = Subset(rows, tuple(rows.names.index(name) for name in ("u in dv/dt", "1 in dv/dt", "v in dv/dt")))
    selection = sparsest(few, **OPTIONS)
    others = {rival.names for rival in selection.rivals}
    assert {selection.fit.names} | others >= {("u in dv/dt",), ("1 in dv/dt",)}
    assert "nearly as good without" in str(selection) and "more pictures would tell" in str(selection)


def test_few_pictures_are_said_to_be_few():
    selection = sparsest(conditions(60, seed=1), **OPTIONS)
    rank = selection.fit.kept_rank
    assert f"60 pictures for {rank} conditions are few" in str(selection) and f"take {2 * rank} or more" in str(
        selection
    )


def test_the_score_of_many_contributions_is_that_of_infinitely_many():
    fit = sparsest(conditions(300, seed=0), **OPTIONS).fit._replace(j_statistic=50.0)
    assert score(fit, math.inf, 4.0) == 50 - fit.kept_rank + 16
    assert score(fit, 1e9, 4.0) == pytest.approx(score(fit, math.inf, 4.0), abs=1e-4)


def test_a_set_that_the_data_contradict_is_no_bargain():
    """The likelihood of 64 pictures alone would take a J of 6,000 for six terms less."""
    fit = sparsest(conditions(300, seed=0), **OPTIONS).fit
    good, bad = fit._replace(kept_rank=50, j_statistic=190.0), fit._replace(kept_rank=50, j_statistic=6000.0)
    assert score(bad, 64, 4.0) > score(good, 64, 4.0) + 6 * 16


def test_fewer_conditions_than_terms_are_refused():
    with pytest.raises(ValueError, match="as many independent conditions as unknowns, got 14 for 19"):
        sparsest(conditions(15, seed=0), **OPTIONS)


@pytest.mark.parametrize("options", [{"threshold": 0.0}, {"width": 0}])
def test_bad_arguments_are_refused(options):
    with pytest.raises(ValueError, match="positive threshold and a width from 1 up"):
        sparsest(conditions(60, seed=0), **options)
