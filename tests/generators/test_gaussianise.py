import os

import numpy as np
import pytest
import scipy.stats
import torch
import torch.nn.functional as F

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
