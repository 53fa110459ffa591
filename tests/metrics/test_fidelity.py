import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import correlate, correlate1d
from skimage.metrics import mean_squared_error, peak_signal_noise_ratio, structural_similarity

from pulse_audit.metrics.fidelity import ms_ssim, mse, psnr, spread, ssim
from pulse_audit.metrics.registry import MEASURED
from pulse_audit.types import Unavailable

METRICS = [MEASURED[name].load() for name in ("psnr", "ssim", "ms_ssim")]

DATA = Path(__file__).resolve().parents[1] / "data"


def pair(n, size, noise=0.2, seed=0):
    """Smooth-ish images and noisy copies of them, in [0, 1], float32."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand((n, 3, 4, 4), generator=generator)
    hr = torch.nn.functional.interpolate(coarse, (size, size), mode="bilinear")
    sr = hr + noise * torch.randn(hr.shape, generator=generator)
    return sr.clamp(0, 1), hr


def reference(function, sr, hr, **settings):
    """Apply a scikit-image metric to every image in float64."""
    arrays = [t.permute(0, 2, 3, 1).double().numpy() for t in (hr, sr)]
    return [function(a, b, **settings) for a, b in zip(*arrays, strict=True)]


@pytest.mark.parametrize("size", [11, 16, 32, 64, 224])
def test_ssim_equals_scikit_image(size):
    sr, hr = pair(2, size)
    expected = reference(
        structural_similarity,
        sr,
        hr,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        data_range=1,
        channel_axis=2,
    )
    np.testing.assert_allclose(ssim(sr, hr).numpy(), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("size", [1, 16, 224])
def test_psnr_equals_scikit_image(size):
    sr, hr = pair(3, size)
    expected = reference(peak_signal_noise_ratio, sr, hr, data_range=1)
    np.testing.assert_allclose(psnr(sr, hr).numpy(), expected, atol=1e-9)


def test_mse_equals_scikit_image():
    sr, hr = pair(3, 32)
    expected = reference(mean_squared_error, sr, hr)
    np.testing.assert_allclose(mse(sr, hr).numpy(), expected, rtol=1e-12)


def test_psnr_of_a_constant_error_in_closed_form():
    hr = torch.zeros(1, 3, 16, 16, dtype=torch.float64)
    assert float(psnr(hr + 0.1, hr)) == pytest.approx(20)


def test_ssim_of_two_flat_images_in_closed_form():
    x = torch.full((1, 3, 16, 16), 0.2, dtype=torch.float64)
    expected = (2 * 0.2 * 0.6 + 1e-4) / (0.2**2 + 0.6**2 + 1e-4)
    assert float(ssim(x, x * 3)) == pytest.approx(expected)


def by_the_paper(x, y):
    """MS-SSIM of one channel after Wang's own words, with scipy's filters and no shared code."""
    window = np.exp(-((np.arange(11) - 5.0) ** 2) / 4.5)
    window /= window.sum()
    exponents = [0.0448, 0.2856, 0.3001, 0.2363, 0.1333]
    score = 1.0
    for scale, exponent in enumerate(exponents):
        products = [x, y, x * x, y * y, x * y]
        mean = [correlate1d(correlate1d(a, window, 0), window, 1)[5:-5, 5:-5] for a in products]
        spread_x, spread_y = mean[2] - mean[0] ** 2, mean[3] - mean[1] ** 2
        score_map = (2 * (mean[4] - mean[0] * mean[1]) + 9e-4) / (spread_x + spread_y + 9e-4)
        if scale == 4:
            score_map *= (2 * mean[0] * mean[1] + 1e-4) / (mean[0] ** 2 + mean[1] ** 2 + 1e-4)
        score *= score_map.mean() ** exponent
        x, y = (correlate(a, np.full((2, 2), 0.25), mode="reflect", origin=-1) for a in (x, y))
        x, y = x[::2, ::2], y[::2, ::2]
    return score


@pytest.mark.parametrize("size", [161, 170])
def test_ms_ssim_equals_the_paper_on_scipy_filters_odd_sizes_included(size):
    sr, hr = pair(1, size)
    arrays = zip(sr.double().numpy(), hr.double().numpy(), strict=True)
    expected = [
        np.mean([by_the_paper(a, b) for a, b in zip(*image, strict=True)]) for image in arrays
    ]
    np.testing.assert_allclose(ms_ssim(sr, hr).numpy(), expected, rtol=1e-9)


def waves(size):
    """Images that any program can draw again: sums of cosines, and their noisy copies."""
    y, x = np.mgrid[:size, :size]
    channels = [0.5 + 0.2 * np.cos(x / a) + 0.2 * np.cos(y / (a + 2)) for a in (3.0, 9.0, 25.0)]
    hr = np.stack(channels)[None]
    return hr + 0.1 * np.sin(1.7 * x * x + 2.3 * y), hr


def test_ms_ssim_equals_the_numbers_of_pytorch_msssim():
    stored = json.loads((DATA / "ms_ssim.json").read_text())
    for size, expected in stored["ms_ssim"].items():
        sr, hr = (torch.from_numpy(a) for a in waves(int(size)))
        assert float(ms_ssim(sr, hr)) == pytest.approx(expected, rel=1e-9)


def test_ms_ssim_of_two_flat_images_is_their_luminance_to_the_last_exponent():
    x = torch.full((1, 3, 161, 161), 0.2, dtype=torch.float64)
    expected = ((2 * 0.2 * 0.6 + 1e-4) / (0.2**2 + 0.6**2 + 1e-4)) ** 0.1333
    assert float(ms_ssim(x, x * 3)) == pytest.approx(expected)


def test_ms_ssim_of_an_image_and_its_negative_is_zero():
    hr = torch.from_numpy(waves(161)[1])
    assert float(ms_ssim(1 - hr, hr)) == 0


def test_ms_ssim_below_161_px_is_unavailable():
    answer = ms_ssim(*pair(1, 160))
    assert answer == Unavailable("ms_ssim needs images of at least 161 px, not 160")


def test_identical_images_have_infinite_psnr_and_ssim_one():
    _, hr = pair(2, 32)
    assert psnr(hr, hr).tolist() == [math.inf] * 2
    torch.testing.assert_close(ssim(hr, hr), torch.ones(2, dtype=torch.float64))
    _, hr = pair(1, 161)
    torch.testing.assert_close(ms_ssim(hr, hr), torch.ones(1, dtype=torch.float64))


def test_ssim_of_images_below_its_window_is_unavailable():
    answer = ssim(*pair(2, 10))
    assert answer == Unavailable("ssim needs images of at least 11 px, not 10")


def test_a_metric_says_from_its_size_alone_whether_it_can_be_taken():
    sizes = (8, 10, 11, 160, 161)
    available = {m.name: [size for size in sizes if m.available(size) is None] for m in METRICS}
    assert available == {"psnr": [*sizes], "ssim": [11, 160, 161], "ms_ssim": [161]}


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_a_score_does_not_depend_on_batch_mates(metric):
    sr, hr = pair(3, max(48, metric.smallest))
    together, alone = metric.compute(sr, hr)[2:], metric.compute(sr[2:], hr[2:])
    torch.testing.assert_close(together, alone, rtol=1e-13, atol=0)


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_more_noise_scores_worse(metric):
    scores = [
        float(metric.compute(*pair(1, max(64, metric.smallest), noise)))
        for noise in (0.02, 0.1, 0.3)
    ]
    assert scores == sorted(scores, reverse=metric.higher_is_better)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10_000), size=st.integers(11, 40), noise=st.floats(0, 1))
def test_properties_of_ssim_and_mse(seed, size, noise):
    sr, hr = pair(2, size, noise, seed)
    similarity = ssim(sr, hr)
    assert bool((similarity <= 1 + 1e-12).all())
    assert bool((similarity >= -1).all())
    torch.testing.assert_close(similarity, ssim(hr, sr))
    torch.testing.assert_close(ssim(sr.mT, hr.mT), similarity)
    assert bool((mse(sr, hr) >= 0).all())


def test_half_precision_inputs_are_measured_in_double():
    sr, hr = (t.bfloat16() for t in pair(1, 32))
    assert torch.equal(psnr(sr, hr), psnr(sr.double(), hr.double()))


@pytest.mark.parametrize("metric", [mse, psnr, ssim, ms_ssim])
def test_shapes_that_differ_are_refused(metric):
    with pytest.raises(ValueError, match="must be batches of one shape"):
        metric(torch.zeros(1, 3, 16, 16), torch.zeros(2, 3, 16, 16))


def test_spread_is_the_distance_to_the_other_draws_of_a_face():
    images, _ = pair(4, 8)
    found = spread(images, ["a", "b", "a", "a"])
    numbers = images.double().numpy()
    others = [np.square(numbers[0] - numbers[j]).mean() for j in (2, 3)]
    assert float(found[0]) == pytest.approx(255 * np.mean(others) ** 0.5)
    assert math.isnan(float(found[1]))
    assert float(spread(images[[0, 0]], ["a", "a"])[0]) == 0
