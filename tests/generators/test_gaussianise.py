import os

import numpy as np
import pytest
import scipy.stats
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from pulse_audit.generators.gaussianise import (
    GaussianFit,
    cache_folder,
    cached_fit,
    fit_gaussian,
    read_gaussian_fit,
    uniform_from_gaussian,
    weights_digest,
)
from pulse_audit.types import InputError

MEAN = torch.tensor([0.5, -1.0, 0.0])
STD = torch.tensor([0.3, 2.0, 1.0])
WEIGHTS = {"layer.weight": STD, "layer.bias": MEAN}


def mapping(z):
    return F.leaky_relu(z * STD + MEAN, 0.2)


class Counted:
    """The mapping, counting its calls."""

    def __init__(self):
        self.calls = 0

    def __call__(self, z):
        self.calls += 1
        return mapping(z)


@pytest.fixture
def counted():
    return Counted()


def fit_of(call, folder, weights=WEIGHTS, **settings):
    return cached_fit(call, 3, weights, cache=folder, **{"samples": 100, **settings})


def test_the_fit_finds_the_gaussian_behind_the_leaky_relu():
    fit = fit_gaussian(mapping, 3, samples=200_000)
    standard_error = STD / np.sqrt(200_000)
    assert ((fit.mean - MEAN).abs() < 4 * standard_error).all()
    assert ((fit.std - STD).abs() < 4 * standard_error).all()


def mixed(z):
    """Entries that depend on one another, the covariance being mixing @ mixing.T."""
    return F.leaky_relu(z @ MIXING.T + MEAN, 0.2)


MIXING = torch.tensor([[0.5, 0.0, 0.0], [-1.0, 2.0, 0.0], [0.3, 0.4, 0.1]])


def test_the_full_fit_finds_the_covariance():
    fit = fit_gaussian(mixed, 3, samples=200_000, full=True)
    wanted = (MIXING @ MIXING.T).double()
    # Standard errors of a Gaussian's covariances: sqrt((s_ii s_jj + s_ij^2) / n).
    variances = wanted.diagonal()
    errors = ((torch.outer(variances, variances) + wanted**2) / 200_000).sqrt()
    found = fit.factor.double() @ fit.factor.T.double()
    assert ((found - wanted).abs() < 4.5 * errors).all()
    assert torch.equal(fit.factor, fit.factor.tril())
    assert torch.equal(fit.std, fit_gaussian(mixed, 3, samples=200_000).std)
    styles = fit.styles(torch.tensor([[1.0, -2.0, 0.5]]))
    before = fit.mean + torch.tensor([1.0, -2.0, 0.5]) @ fit.factor.T
    assert torch.allclose(styles, F.leaky_relu(before, 0.2))


def test_the_full_fit_in_chunks_is_the_covariance_of_all_samples():
    seen = []

    def spy(z):
        seen.append(z)
        return F.leaky_relu(z @ MIXING.T + 1000, 0.2)

    fit = fit_gaussian(spy, 3, samples=25_000, full=True)
    values = F.leaky_relu(spy(torch.cat(seen)), 5).double().numpy()
    found = fit.factor.double() @ fit.factor.T.double()
    np.testing.assert_allclose(found, np.cov(values.T), rtol=1e-5, atol=1e-7)


def test_an_entry_that_never_varies_does_not_end_the_full_fit():
    scale = torch.tensor([1.0, 0.0, 1.0])
    fit = fit_gaussian(lambda z: F.leaky_relu(z * scale, 0.2), 3, samples=5_000, full=True)
    assert torch.isfinite(fit.factor).all()
    assert fit.factor[1].abs().max() < 1e-2


def test_the_full_fit_is_cached_under_a_key_of_its_own(counted, tmp_path):
    diagonal = fit_of(counted, tmp_path)
    full, calls = fit_of(counted, tmp_path, full=True), counted.calls
    again = fit_of(counted, tmp_path, full=True)
    assert counted.calls == calls
    assert torch.equal(full.factor, again.factor)
    assert fit_of(counted, tmp_path).factor is None
    assert torch.equal(full.std, diagonal.std)


@pytest.mark.parametrize("factor", [torch.eye(2), torch.full((3, 3), float("nan"))])
def test_a_factor_that_does_not_fit_is_refused(factor, tmp_path):
    path = tmp_path / "fit.safetensors"
    save_file({"mean": MEAN, "std": STD, "factor": factor}, path)
    with pytest.raises(InputError, match="its factor does not fit"):
        read_gaussian_fit(path)


def test_chunks_give_what_one_pass_gives():
    """25,000 samples take three chunks; numpy takes all at once, in float64."""
    seen = []

    def spy(z):
        seen.append(z)
        return mapping(z)

    fit = fit_gaussian(spy, 3, samples=25_000)
    assert [len(z) for z in seen] == [10_000, 10_000, 5_000]
    values = (torch.cat(seen).double() * STD + MEAN).numpy()
    np.testing.assert_allclose(fit.mean, values.mean(0), atol=1e-6)
    np.testing.assert_allclose(fit.std, values.std(0, ddof=1), rtol=1e-6)


def test_seed_decides_the_samples():
    first, again = (fit_gaussian(mapping, 3, samples=50, seed=0) for _ in range(2))
    other = fit_gaussian(mapping, 3, samples=50, seed=1)
    assert torch.equal(first.mean, again.mean)
    assert not torch.equal(first.mean, other.mean)


def test_styles_pass_through_affine_and_leaky_relu():
    styles = GaussianFit(MEAN, STD).styles(torch.tensor([[1.0, 0.0, -2.0]]))
    assert torch.allclose(styles, torch.tensor([[0.8, -0.2, -0.4]]))


def test_a_second_fit_is_read_from_disk(counted, tmp_path):
    first = fit_of(counted, tmp_path)
    calls = counted.calls
    second = fit_of(counted, tmp_path)
    assert counted.calls == calls
    assert torch.equal(first.mean, second.mean)
    assert torch.equal(first.std, second.std)


@pytest.mark.parametrize(
    "change", [{"samples": 101}, {"seed": 1}, {"label": 0}, {"weights": {"layer.weight": MEAN}}]
)
def test_whatever_changes_the_fit_is_in_its_key(counted, tmp_path, change):
    fit_of(counted, tmp_path)
    calls = counted.calls
    fit_of(counted, tmp_path, **change)
    assert counted.calls > calls


def test_a_damaged_file_of_the_cache_is_made_again(counted, tmp_path):
    wanted = fit_of(counted, tmp_path)
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:20])
    assert torch.equal(fit_of(counted, tmp_path).mean, wanted.mean)
    assert torch.equal(read_gaussian_fit(path).mean, wanted.mean)


def test_an_interrupted_write_leaves_no_file(counted, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(InputError, match="No space left on device.; set PULSE_AUDIT_HOME"):
        fit_of(counted, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_mapping_network_of_nan_is_refused_and_not_stored(tmp_path):
    with pytest.raises(InputError, match="not finite"):
        fit_of(lambda z: z * float("nan"), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_cache_lies_where_the_environment_says(counted, tmp_path, monkeypatch):
    monkeypatch.setenv("PULSE_AUDIT_HOME", str(tmp_path))
    assert cache_folder() == tmp_path
    cached_fit(counted, 3, WEIGHTS, samples=10)
    assert len(list((tmp_path / "gaussian-fits").glob("*.safetensors"))) == 1


def test_pulse_s_own_file_is_read(tmp_path):
    path = tmp_path / "gaussian_fit.pt"
    torch.save({"mean": MEAN, "std": STD}, path)
    fit = read_gaussian_fit(path)
    assert torch.equal(fit.mean, MEAN)
    assert torch.equal(fit.std, STD)


class Malice:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_malicious_file_is_not_executed(tmp_path):
    path, target = tmp_path / "gaussian_fit.pt", tmp_path / "made-by-the-file"
    torch.save({"mean": MEAN, "std": Malice(target)}, path)
    with pytest.raises(InputError, match="not a gaussian fit"):
        read_gaussian_fit(path)
    assert not target.exists()


@pytest.mark.parametrize(
    "content",
    [
        {"mean": MEAN},
        {},
        [MEAN, STD],
        {"mean": MEAN, "std": STD[:2]},
        {"mean": MEAN, "std": -STD},
        {"mean": MEAN / 0, "std": STD},
    ],
)
def test_a_file_of_something_else_is_refused(tmp_path, content):
    path = tmp_path / "fit.pt"
    torch.save(content, path)
    with pytest.raises(InputError, match="fit.pt: not a gaussian fit"):
        read_gaussian_fit(path)


def test_a_missing_file_costs_one_line(tmp_path):
    with pytest.raises(InputError, match="cannot be read") as caught:
        read_gaussian_fit(tmp_path / "none.pt")
    assert "\n" not in str(caught.value)


def test_the_uniform_prior_is_the_gaussian_s_distribution_function():
    values = np.linspace(-4, 4, 33)
    wanted = 2 * scipy.stats.norm.cdf(values) - 1
    np.testing.assert_allclose(uniform_from_gaussian(torch.from_numpy(values)), wanted, atol=1e-12)


def test_the_digest_sees_names_values_types_and_shapes():
    tensors = [
        {"a": MEAN},
        {"b": MEAN},
        {"a": STD},
        {"a": MEAN.double()},
        {"a": MEAN[:, None]},
        {"a": MEAN, "b": STD},
    ]
    assert len({weights_digest(t) for t in tensors}) == len(tensors)
    assert weights_digest(WEIGHTS) == weights_digest(dict(reversed(WEIGHTS.items())))
