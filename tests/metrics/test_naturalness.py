import numpy as np
import pytest
import torch
from scipy.ndimage import convolve, correlate1d
from scipy.special import gamma

from pulse_audit.degrade.resample import resize
from pulse_audit.metrics.naturalness import (
    NiqeModel,
    _halved,
    asymmetric_gaussian,
    luminance,
    patch_features,
    sharpness,
)
from pulse_audit.types import Unavailable


def natural(n, size, seed=0):
    """Pictures with the 1/f spectrum of photographs and edges between their parts."""
    random = np.random.default_rng(seed)
    y, x = np.meshgrid(np.fft.fftfreq(size), np.fft.fftfreq(size), indexing="ij")
    falloff = 1 / np.maximum(np.hypot(x, y), 1 / size)
    fields = np.fft.ifft2(np.fft.fft2(random.standard_normal((2 * n, size, size))) * falloff).real
    fields /= fields.std((1, 2), keepdims=True)
    scenes = fields[:n] + 1.5 * np.sign(fields[n:])
    tint = random.uniform(0.7, 1, (n, 3, 1, 1))
    return torch.from_numpy((0.5 + 0.12 * scenes[:, None] * tint).clip(0, 1)).float()


def noisy(images, sigma, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return (images + sigma * torch.randn(images.shape, generator=generator)).clamp(0, 1)


def blurred(images, width):
    kernel = torch.full((3, 1, width, width), 1 / width**2)
    return torch.nn.functional.conv2d(images, kernel, padding="same", groups=3)


# --- NIQE once more, in numpy and scipy, patch by patch, after the released program -------------

SHAPES = np.arange(0.2, 10.0005, 0.001)
RATIOS = gamma(2 / SHAPES) ** 2 / (gamma(1 / SHAPES) * gamma(3 / SHAPES))


def fitted(values):
    left, right = (np.sqrt((values[s] ** 2).mean()) for s in (values < 0, values > 0))
    g = left / right
    ratio = np.abs(values).mean() ** 2 / (values**2).mean()
    ratio *= (g**3 + 1) * (g + 1) / (g**2 + 1) ** 2
    shape = SHAPES[np.argmin((RATIOS - ratio) ** 2)]
    scale = np.sqrt(gamma(1 / shape) / gamma(3 / shape))
    return shape, left * scale, right * scale


def statistics(block):
    shape, left, right = fitted(block.ravel())
    features = [shape, (left + right) / 2]
    for shift in ((0, 1), (1, 0), (1, 1), (-1, 1)):
        product = block * np.roll(block, shift, (0, 1))
        shape, left, right = fitted(product.ravel())
        mean = (right - left) * gamma(2 / shape) / gamma(1 / shape)
        features += [shape, mean, left, right]
    return features


def contrast(grey):
    window = np.exp(-0.5 * (np.arange(-3, 4) / (7 / 6)) ** 2)
    window /= window.sum()

    def smooth(a):
        return correlate1d(correlate1d(a, window, 0, mode="nearest"), window, 1, mode="nearest")

    mean = smooth(grey)
    spread = np.sqrt(np.abs(smooth(grey**2) - mean**2))
    return (grey - mean) / (spread + 1), spread


def half(grey):
    """MATLAB's imresize(x, 0.5): Keys' cubic of twice the width, image mirrored at its edges."""

    def keys(x):
        x = abs(x)
        return 1.5 * x**3 - 2.5 * x**2 + 1 if x < 1 else -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2

    size = len(grey)
    matrix = np.zeros((size // 2, size))
    for row in range(size // 2):
        for column in range(2 * row - 3, 2 * row + 5):
            mirrored = -1 - column if column < 0 else min(column, 2 * size - 1 - column)
            matrix[row, mirrored] += keys((column + 0.5) / 2 - (row + 0.5)) / 2
    return matrix @ grey @ matrix.T


def described(image, patch):
    """Features (patches, 36) and sharpness of one square image (3, s, s)."""
    size = image.shape[-1] // patch * patch
    grey = 255 * np.tensordot([0.298936, 0.587043, 0.114021], image.numpy().astype(float), 1)
    grey = grey[:size, :size]
    fine, spread = contrast(grey)
    coarse, _ = contrast(half(grey))
    features, sharp = [], []
    for i in range(size // patch):
        for j in range(size // patch):
            at = np.s_[i * patch : (i + 1) * patch, j * patch : (j + 1) * patch]
            p = patch // 2
            features.append(
                statistics(fine[at]) + statistics(coarse[i * p : (i + 1) * p, j * p : (j + 1) * p])
            )
            sharp.append(spread[at].mean())
    return np.array(features), np.array(sharp)


def niqe_again(originals, image, patch):
    pairs = [described(original, patch) for original in originals]
    pristine = np.concatenate([f[s > 0.75 * s.max()] for f, s in pairs])
    features, _ = described(image, patch)
    pooled = (np.cov(pristine, rowvar=False) + np.cov(features, rowvar=False)) / 2
    difference = pristine.mean(0) - features.mean(0)
    return float(np.sqrt(difference @ np.linalg.pinv(pooled) @ difference))


@pytest.fixture(scope="module")
def originals():
    return natural(16, 72)


@pytest.fixture(scope="module")
def small(originals):
    return NiqeModel.fit(originals, 32)


def test_niqe_small_equals_a_second_implementation(originals, small):
    images = noisy(natural(2, 72, seed=5), 0.05)
    expected = [niqe_again(originals, image, 32) for image in images]
    np.testing.assert_allclose(small.score(images).numpy(), expected, rtol=1e-6)


def test_features_of_the_paper_s_patches_equal_a_second_implementation():
    (image,) = natural(1, 200, seed=3)
    features, sharp = patch_features(image[None], 96)
    expected, expected_sharp = described(image, 96)
    assert features.shape == (1, 4, 36)
    np.testing.assert_allclose(features[0].numpy(), expected, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(sharp[0].numpy(), expected_sharp, rtol=1e-10)


@pytest.mark.parametrize(
    ("shape", "left", "right"), [(2.0, 1.0, 1.0), (0.7, 0.5, 1.5), (1.3, 2.0, 0.8), (4.0, 1.0, 3.0)]
)
def test_an_asymmetric_gaussian_is_recovered_from_its_draws(shape, left, right):
    random = np.random.default_rng(7)
    sizes = random.gamma(1 / shape, size=200_000) ** (1 / shape)
    on_the_right = random.random(200_000) < right / (left + right)
    draws = torch.from_numpy(np.where(on_the_right, right * sizes, -left * sizes))
    found = [float(value) for value in asymmetric_gaussian(draws)]
    assert found == pytest.approx([shape, left, right], rel=0.03)


def test_halving_is_the_antialiased_bicubic_of_the_house(originals):
    grey = luminance(originals[:1])
    expected = resize(grey[:, None], 36, "bicubic")[:, 0]
    torch.testing.assert_close(_halved(grey), expected, atol=1e-9, rtol=0)


def test_what_equals_the_model_has_distance_zero(small):
    (image,) = natural(1, 72, seed=9)
    (features,), _ = patch_features(image[None], 32)
    same = NiqeModel(features.mean(0), small.covariance, 32, 1, len(features))
    assert float(same.score(image[None])) == 0


@pytest.mark.parametrize("damage", [lambda x: noisy(x, 0.15), lambda x: blurred(x, 5)])
def test_damage_moves_images_away_from_the_natural_ones(small, damage):
    clean = natural(4, 72, seed=2)
    assert bool((small.score(damage(clean)) > small.score(clean)).all())


def test_scores_do_not_depend_on_batch_mates_or_on_the_originals(small):
    images = natural(3, 72, seed=4)
    together = small.metric.compute(images, images)[1:2]
    alone = small.metric.compute(images[1:2], torch.zeros(1, 3, 72, 72))
    torch.testing.assert_close(together, alone, rtol=1e-9, atol=0)


def test_originals_may_come_one_at_a_time_and_in_any_size(originals, small):
    larger = torch.nn.functional.pad(originals[3], (0, 20, 0, 7))
    model = NiqeModel.fit([*originals[:3], larger, *originals[4:]], 32)
    torch.testing.assert_close(NiqeModel.fit(iter(originals), 32).mean, small.mean)
    torch.testing.assert_close(model.mean, small.mean)


def test_only_sharp_patches_teach_the_model(originals, small):
    dull = originals.clone()
    dull[..., :32, :32] = 0.5 + 0.05 * (dull[..., :32, :32] - 0.5)
    model = NiqeModel.fit(dull, 32)
    kept = [described(image, 32)[1] for image in dull[:4]]
    assert all(sharp[0] < 0.75 * sharp.max() for sharp in kept)
    assert model.n_patches < small.n_patches <= 4 * 16


def test_flat_patches_are_left_out_and_a_flat_image_has_no_score(small):
    (image,) = natural(1, 64, seed=6)
    part = image.clone()
    part[:, :44, :44] = 0.3
    features, _ = patch_features(torch.stack([part]), 32)
    assert features.isnan().any(-1).tolist() == [[True, False, False, False]]
    scores = small.score(torch.stack([part, torch.full_like(part, 0.3)]))
    assert scores.isnan().tolist() == [False, True]


def test_a_model_needs_more_patches_than_features(originals):
    answer = NiqeModel.fit(originals[:2], 32)
    assert isinstance(answer, Unavailable)
    assert "needs 37 sharp patches of 32 px, and 2 originals hold" in answer.reason


def test_originals_smaller_than_a_patch_teach_nothing(originals):
    assert "16 originals hold 0" in NiqeModel.fit(originals, 96).reason
    assert "0 originals hold 0" in NiqeModel.fit([], 96).reason


def test_the_name_and_the_smallest_side_follow_from_the_patch(small):
    metric = small.metric
    assert (metric.name, metric.smallest, metric.higher_is_better) == ("niqe_small", 64, False)
    assert metric.compute(torch.rand(1, 3, 63, 63), torch.rand(1, 3, 63, 63)) == Unavailable(
        "niqe_small needs images of at least 64 px, not 63"
    )
    paper = NiqeModel(small.mean, small.covariance, 96, 1, 40).metric
    assert (paper.name, paper.smallest) == ("niqe", 192)


def test_sharpness_equals_scipy():
    images = natural(3, 40)
    kernel = np.array([[0, 1, 0], [1, -4, 1], [0, 1, 0]])
    grey = 255 * np.einsum("nchw,c->nhw", images.double().numpy(), [0.298936, 0.587043, 0.114021])
    expected = [convolve(g, kernel)[1:-1, 1:-1].var() for g in grey]
    np.testing.assert_allclose(sharpness(images, images).numpy(), expected, rtol=1e-10)


def test_sharpness_of_a_wave_in_closed_form():
    # A cosine is an eigenvector of the Laplacian; 48 inner columns hold whole periods.
    frequency = 2 * np.pi / 12
    row = 0.5 + 0.2 * torch.cos(frequency * torch.arange(50, dtype=torch.float64))
    image = row.expand(1, 3, 50, 50)
    expected = (2 - 2 * np.cos(frequency)) ** 2 * (255 * 0.2) ** 2 / 2
    assert float(sharpness(image, image)) == pytest.approx(expected, rel=1e-5)


def test_blur_is_less_sharp_and_a_flat_image_not_at_all():
    images = natural(1, 40)
    values = [float(sharpness(x, x)) for x in (images, blurred(images, 3), images * 0 + 0.3)]
    assert values[0] > values[1] > values[2]
    assert values[2] == pytest.approx(0, abs=1e-20)


def test_sharpness_needs_a_pixel_with_neighbours():
    tiny = torch.zeros(1, 3, 2, 2)
    assert sharpness(tiny, tiny) == Unavailable("sharpness needs images of at least 3 px, not 2")
