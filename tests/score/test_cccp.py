import pytest
import torch

from eqflow.score import Density, DensityShape, cluster, denoise
from eqflow.score.cccp import _joined
from eqflow.systems.whitened import WhitenedMixture

DOUBLE = torch.float64


def normals(*shape, seed=0):
    return torch.randn(*shape, dtype=DOUBLE, generator=torch.Generator().manual_seed(seed))


def made(couplings=0, components=12):
    """A density of three coordinates away from its start."""
    density = Density(DensityShape(3, components, couplings, (16,)), 2 * normals(components, 3), 0.5, seed=1)
    with torch.no_grad():
        for number, parameter in enumerate(density.parameters()):
            parameter += 0.2 * normals(*parameter.shape, seed=100 + number)
    return density.requires_grad_(False)


def hot_energy(density, points, temperature):
    """-log of the latent mixture whose covariance is T Sigma, by the formula."""
    latent, _ = density.inverse(points)
    covariance = temperature * density.factor @ density.factor.T
    away = latent[:, None] - density.centroids
    squares = torch.einsum("nki,ij,nkj->nk", away, torch.linalg.inv(covariance), away)
    return -(density.logits.log_softmax(0) - squares / 2).logsumexp(1)


@pytest.mark.parametrize("couplings", [0, 2])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 16.0])
def test_the_energy_of_the_same_temperature_never_rises(couplings, temperature):
    density, points = made(couplings), 3 * normals(500, 3, seed=5)
    energy, rise = hot_energy(density, points, temperature), -torch.inf
    for _ in range(30):
        points = denoise(density, points, temperature=temperature)
        before, energy = energy, hot_energy(density, points, temperature)
        rise = max(rise, float((energy - before).max()))
    assert rise < 1e-10


def test_a_step_is_the_mean_of_the_centroids_given_the_point():
    density, points = made(), normals(9, 3, seed=5)
    mixture = WhitenedMixture(density.centroids, torch.linalg.inv(density.factor) / 2, density.logits.log_softmax(0))
    expected = mixture.posterior(points) @ density.centroids
    torch.testing.assert_close(denoise(density, points, temperature=4.0), expected, rtol=1e-10, atol=1e-10)
    # At T = 1 it is a step up the score, as long as the covariance: Tweedie's formula.
    score = points + density.score(points) @ (density.factor @ density.factor.T)
    torch.testing.assert_close(denoise(density, points), score, rtol=1e-10, atol=1e-10)


def test_fixed_points_are_where_the_score_vanishes():
    density = made()
    settled = denoise(density, normals(200, 3, seed=5), steps=5000)
    assert density.score(settled).abs().max() < 1e-3
    assert (denoise(density, settled) - settled).abs().max() < 1e-5


def test_groups_are_found_and_numbered_by_size():
    centres = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 3.0]], dtype=DOUBLE)
    truth = torch.tensor([0] * 50 + [1] * 120 + [2] * 80)
    points = centres[truth] + 0.2 * normals(250, 2)
    density = Density(DensityShape(2, 60), points[torch.arange(60) * 4], 0.15).requires_grad_(False)
    found = cluster(density, points, temperature=16.0)
    assert found.sizes.tolist() == [120, 80, 50]
    assert torch.equal(found.labels, torch.tensor([2, 0, 1])[truth])
    torch.testing.assert_close(found.centres, centres[[1, 2, 0]], rtol=0, atol=0.2)
    assert len(cluster(density, points, temperature=0.01, radius=0.01).sizes) > 50  # nearly every component
    assert len(cluster(density, points, temperature=1e4).sizes) == 1
    # The order of the points does not matter.
    order = torch.randperm(250, generator=torch.Generator().manual_seed(1))
    assert torch.equal(cluster(density, points[order]).labels, found.labels[order])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda d: denoise(d, torch.zeros(3, 2)), r"expected points \[batch, 3\], got \[3, 2\]"),
        (lambda d: denoise(d, torch.full((3, 3), torch.nan, dtype=DOUBLE)), "expected finite points"),
        (lambda d: denoise(d, torch.zeros(0, 3)), "expected at least one point"),
        (lambda d: denoise(d, torch.zeros(3, 3, dtype=DOUBLE), temperature=0), "expected a positive temperature"),
        (lambda d: denoise(d, torch.zeros(3, 3, dtype=DOUBLE), steps=0), "expected steps from 1 up"),
        (lambda d: cluster(d, torch.zeros(3, 3, dtype=DOUBLE), radius=0), "expected a positive radius"),
        (lambda d: cluster(d, torch.zeros(0, 3)), "expected at least one point"),
    ],
)
def test_wrong_arguments_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make(made())


def test_points_of_another_precision_are_refused():
    with pytest.raises(TypeError, match=r"expected torch\.float64 points .* got torch\.float32 .*use density\.to"):
        denoise(made(), torch.zeros(3, 3))


def test_far_places_are_told_apart():
    """Two rows of places in float32, so far out that the squares of their distances drown in those of the places."""
    places = 5e5 + torch.cat([torch.arange(30.0), 100 + torch.arange(30.0)])[:, None].expand(-1, 2)
    assert _joined(places, 50).tolist() == [0] * 30 + [1] * 30
    assert _joined(places, 110).tolist() == [0] * 60
