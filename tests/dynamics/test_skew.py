import itertools

import pytest
import torch

from eqflow.dynamics import skew

SHAPES = [(2, 0), (3, 0), (1, 1), (2, 1), (3, 1), (2, 2), (5, 2)]  # channels, radius
GRIDS = [(5, 7), (9, 3), (8, 6)]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def inner(x, y):
    return (x * y).sum((1, 2, 3))


@pytest.mark.parametrize("channels, radius", SHAPES)
@pytest.mark.parametrize("height, width", GRIDS)
def test_the_operator_is_skew_symmetric(channels, radius, height, width):
    kernel = skew.random(channels, radius, seed=channels + radius).double()
    x, y = torch.randn(2, 4, channels, height, width, dtype=torch.float64, generator=generator())
    size = inner(x, x).max()
    assert inner(x, skew.convolve(kernel, x)).abs().max() < 1e-12 * size
    assert (inner(y, skew.convolve(kernel, x)) + inner(x, skew.convolve(kernel, y))).abs().max() < 1e-12 * size


@pytest.mark.parametrize("channels, radius", SHAPES)
def test_projection(channels, radius):
    size = 2 * radius + 1
    kernels = torch.randn(2, channels, channels, size, size, dtype=torch.float64, generator=generator())
    first, second = (skew.project(kernel) for kernel in kernels)
    assert skew.violation(first) == 0 and torch.equal(skew.project(first), first)
    assert abs(((kernels[0] - first) * second).sum()) < 1e-12  # orthogonal: so the nearest


@pytest.mark.parametrize("channels, radius, count", [(2, 0, 1), (3, 0, 3), (2, 1, 17), (3, 1, 39), (1, 1, 4)])
def test_free_numbers(channels, radius, count):
    size = 2 * radius + 1
    unit = torch.eye(channels**2 * size**2, dtype=torch.float64).view(-1, channels, channels, size, size)
    assert torch.linalg.matrix_rank(torch.stack([skew.project(k).flatten() for k in unit])) == count
    assert count == (channels**2 * size**2 - channels) // 2


@pytest.mark.parametrize("channels, radius", SHAPES)
@pytest.mark.parametrize("height, width", [*GRIDS, (2, 1)])
def test_the_norm_is_that_of_the_dense_matrix(channels, radius, height, width):
    kernel = skew.random(channels, radius, seed=4).double()
    matrix = skew.dense_matrix(kernel, height, width)
    assert torch.equal(matrix, -matrix.T)
    assert skew.spectral_norm(kernel, height, width) == pytest.approx(float(torch.linalg.svdvals(matrix)[0]), rel=1e-12)


def test_the_dense_matrix_is_the_convolution():
    kernel = torch.randn(3, 3, 5, 5, dtype=torch.float64, generator=generator())
    x = torch.randn(2, 3, 5, 6, dtype=torch.float64, generator=generator(1))
    dense = (x.flatten(1) @ skew.dense_matrix(kernel, 5, 6).T).view_as(x)
    torch.testing.assert_close(dense, skew.convolve(kernel, x), rtol=0, atol=1e-13)


@pytest.mark.parametrize("channels, gamma", [(2, 0.7), (4, -1.5), (5, 1.0)])
def test_rotation(channels, gamma):
    kernel = skew.rotation(gamma, channels)
    assert skew.violation(kernel) == 0
    assert skew.spectral_norm(kernel, 4, 3) == pytest.approx(abs(gamma), rel=1e-6)
    first = torch.zeros(1, channels)
    first[0, 0] = 1
    turned = skew.convolve(kernel, first)
    assert turned[0, 1].item() == pytest.approx(gamma) and turned.count_nonzero() == 1


def test_three_angles_are_a_cross_product():
    omega = torch.tensor([0.3, -1.2, 0.5], dtype=torch.float64)
    score = torch.randn(7, 3, dtype=torch.float64, generator=generator())
    kernel = skew.from_angles(omega)
    torch.testing.assert_close(skew.convolve(kernel, score), torch.linalg.cross(omega.expand(7, 3), score))
    assert skew.spectral_norm(kernel, 3, 3) == pytest.approx(float(omega.norm()), rel=1e-12)
    assert skew.from_angles([0, 0, 2.0])[:2, :2].flatten().tolist() == skew.rotation(2.0).flatten().tolist()


def test_random_kernels_are_reproducible():
    kernel = skew.random(3, 1, seed=5, norm=2.5)
    assert torch.equal(kernel, skew.random(3, 1, seed=5, norm=2.5)) and kernel.dtype == torch.float32
    assert not torch.equal(kernel, skew.random(3, 1, seed=6, norm=2.5))
    assert float(kernel.norm()) == pytest.approx(2.5, rel=1e-6) and skew.violation(kernel) == 0


def symmetries_of_the_square(field):
    for flipped, turns in itertools.product((False, True), range(4)):
        yield torch.rot90(field.flip(-1) if flipped else field, turns, (-2, -1))


def test_isotropic_kernels_commute_with_the_symmetries_of_the_square():
    numbers = torch.randn(3, 3, dtype=torch.float64, generator=generator())
    kernel = skew.isotropic(3, numbers)
    assert skew.violation(kernel) == 0
    assert all(torch.equal(other, kernel) for other in symmetries_of_the_square(kernel))
    field = torch.randn(1, 3, 7, 7, dtype=torch.float64, generator=generator(1))
    images = zip(symmetries_of_the_square(field), symmetries_of_the_square(skew.convolve(kernel, field)), strict=True)
    for turned, expected in images:
        torch.testing.assert_close(skew.convolve(kernel, turned), expected, rtol=0, atol=1e-13)


def test_isotropic_kernels_are_all_there_are():
    kernel = skew.random(3, 1, seed=1).double()
    mean = skew.project(torch.stack(list(symmetries_of_the_square(kernel))).mean(0))
    pairs = [mean[1, 0], mean[2, 0], mean[2, 1]]
    torch.testing.assert_close(skew.isotropic(3, torch.stack([k[[1, 0, 0], [1, 1, 0]] for k in pairs])), mean)


def test_isotropic_centre_is_a_rotation():
    assert torch.equal(skew.isotropic(2, [[0.5, 0, 0]])[:, :, 1:2, 1:2], skew.rotation(0.5))


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: skew.project(torch.zeros(2, 3, 1, 1)), r"expected a kernel \[channels, channels.*got \[2, 3, 1, 1\]"),
        (lambda: skew.violation(torch.zeros(2, 2, 2, 2)), "odd size.*pad it"),
        (lambda: skew.rotation(1.0, 1), "expected 2 channels or more, got 1"),
        (lambda: skew.from_angles([1.0, 2.0]), r"three numbers.*got shape \[2\]"),
        (lambda: skew.random(1, 0, seed=0), "only if it is 0"),
        (lambda: skew.isotropic(3, torch.zeros(2, 3)), r"expected .*numbers \[3, 3\].*got \[2, 3\]"),
    ],
)
def test_wrong_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_the_nearest_flow_is_the_least_squares_one():
    scores = torch.randn(200, 4, dtype=torch.float64, generator=generator()) * torch.arange(1, 5)
    velocities = torch.randn(200, 4, dtype=torch.float64, generator=generator(1)) + 0.3 * scores.flip(1)
    kernel = skew.nearest(velocities, scores)
    assert skew.violation(kernel) == 0 and kernel.shape == (4, 4, 1, 1)
    away = skew.convolve(kernel, scores) - velocities
    for seed in range(6):
        assert abs((away * skew.convolve(skew.random(4, 0, seed).double(), scores)).mean()) < 1e-12
    made = skew.random(4, 0, seed=3).double()
    torch.testing.assert_close(skew.nearest(skew.convolve(made, scores), scores), made, rtol=1e-10, atol=1e-12)
    with pytest.raises(ValueError, match=r"velocities and scores \[points, channels\], got \[200, 4\] and \[200, 3\]"):
        skew.nearest(velocities, scores[:, :3])
