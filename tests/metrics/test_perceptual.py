import functools
import pickle
import socket
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import lpips
import numpy as np
import pytest
import torch
import torchvision
from torch import nn

from pulse_audit.files import file_sha256
from pulse_audit.metrics import perceptual
from pulse_audit.metrics.perceptual import TRUNKS, Lpips, bare, load
from pulse_audit.models import published
from pulse_audit.models.fetch import fetch
from pulse_audit.types import InputError, Unavailable

#: After which layers of torchvision's networks LPIPS looks (Zhang et al. 2018, section 3).
RECTIFIED = {
    "alex": (1, 4, 7, 9, 11),
    "vgg": (3, 8, 15, 22, 29),
    "squeeze": (1, 4, 7, 9, 10, 11, 12),
}


def trunk_of(net):
    """torchvision's convolutional layers with seeded random weights, without the classifier."""
    torch.manual_seed(11)
    if net == "vgg":
        models = torchvision.models.vgg
        return models.make_layers(models.cfgs["D"], batch_norm=False).eval()
    model = {"alex": "alexnet", "squeeze": "squeezenet1_1"}[net]
    return getattr(torchvision.models, model)(weights=None).features.eval()


def state_of(trunk):
    return {f"features.{name}": value for name, value in trunk.state_dict().items()}


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        """Stay silent."""


@pytest.fixture(scope="module")
def trunks(tmp_path_factory):
    """Seeded trunks, their files on a local server, fetched from there into an empty published."""
    served = tmp_path_factory.mktemp("served")
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=served))
    cards, made = dict(published.cards()), {net: trunk_of(net) for net in TRUNKS}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PULSE_AUDIT_HOME", str(tmp_path_factory.mktemp("home")))
        patch.setenv("NO_PROXY", "127.0.0.1")
        patch.delenv("PULSE_AUDIT_MIRROR", raising=False)
        patch.setattr(published, "cards", lambda: cards)
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        for net, trunk in made.items():
            card = cards[TRUNKS[net].weights]
            path = served / card.file_name
            # The publisher's older files are no archives.
            torch.save(state_of(trunk), path, _use_new_zipfile_serialization=net == "alex")
            change = {"sha256": None, "sha256_prefix": None, "sha256_source": None}
            change |= {"sha256_status": "unknown", "size": path.stat().st_size}
            change |= {"url": f"http://127.0.0.1:{server.server_port}/{card.file_name}"}
            cards[card.name] = card.model_copy(update=change)
            fetch(cards[card.name], accept=lambda terms: False)
        server.shutdown()
        server.server_close()
        yield made


@pytest.fixture(scope="module")
def loaded(trunks):
    return {net: load(net, weights_of(net)) for net in TRUNKS}


def weights_of(net):
    """The fetched file of a trunk."""
    return published.fetched(published.get(TRUNKS[net].weights))[0]


def pair(n=3, size=64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand((n, 3, 6, 6), generator=generator)
    hr = nn.functional.interpolate(coarse, (size, size), mode="bilinear")
    return (hr + 0.1 * torch.randn(hr.shape, generator=generator)).clamp(0, 1), hr


def by_the_paper(net, trunk, sr, hr):
    """LPIPS in numpy on the rectified layers of torchvision's own network (eq. 1)."""
    path = Path(lpips.__file__).parent / f"weights/v0.1/{net}.pth"
    heads = torch.load(path, map_location="cpu", weights_only=True)
    shift, scale = np.array([-0.030, -0.088, -0.188]), np.array([0.458, 0.448, 0.450])

    def layers(images):
        scaled = (2 * images.double().numpy() - 1 - shift[:, None, None]) / scale[:, None, None]
        x, found = torch.from_numpy(scaled).float(), []
        with torch.no_grad():
            for number, layer in enumerate(trunk):
                # In place, a layer would change what was found before it.
                x = layer(x.clone())
                if number in RECTIFIED[net]:
                    found.append(x.double().numpy())
        return [f / (np.sqrt((f**2).sum(1, keepdims=True)) + 1e-10) for f in found]

    total = np.zeros(len(sr))
    for k, (a, b) in enumerate(zip(layers(sr), layers(hr), strict=True)):
        weights = heads[f"lin{k}.model.1.weight"].double().numpy()
        total += ((a - b) ** 2 * weights).sum(1).mean((1, 2))
    return total


@pytest.mark.parametrize("net", TRUNKS)
def test_lpips_on_fetched_weights_equals_the_paper_s_formula(net, trunks, loaded):
    sr, hr = pair()
    expected = by_the_paper(net, trunks[net], sr, hr)
    assert expected.min() > 1e-3
    np.testing.assert_allclose(loaded[net].compute(sr, hr).numpy(), expected, rtol=1e-5)


@pytest.mark.parametrize("net", TRUNKS)
def test_lpips_equals_the_package_s_own_forward(net, loaded):
    sr, hr = pair(seed=1)
    expected = loaded[net]._model(sr, hr, normalize=True).flatten()
    torch.testing.assert_close(loaded[net].compute(sr, hr).float(), expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("net", TRUNKS)
def test_the_smallest_side_is_the_trunk_s_own(net, loaded):
    metric = loaded[net].metric
    at_least, below = pair(1, metric.smallest), pair(1, metric.smallest - 1)
    assert float(metric.compute(*at_least)) > 0
    assert metric.compute(*below) == Unavailable(
        f"{metric.name} needs images of at least {metric.smallest} px, not {metric.smallest - 1}"
    )
    with pytest.raises(RuntimeError, match=r"(?i)size"):
        loaded[net].features(below[0])


def test_metrics_are_named_after_their_trunk(loaded):
    metrics = [loaded[net].metric for net in ("alex", "vgg", "squeeze")]
    assert [m.name for m in metrics] == ["lpips", "lpips_vgg", "lpips_squeeze"]
    assert not any(m.higher_is_better for m in metrics)


@pytest.mark.parametrize("net", TRUNKS)
def test_a_score_does_not_depend_on_batch_mates_in_any_bit(net, loaded):
    sr, hr = pair()
    fresh = [Lpips(loaded[net]._model, net) for _ in range(2)]
    assert torch.equal(fresh[0].compute(sr, hr)[1:2], fresh[1].compute(sr[1:2], hr[1:2]))


def test_an_image_is_at_no_distance_from_itself_and_more_noise_is_farther(loaded):
    _, hr = pair(1)
    noise = torch.randn(hr.shape, generator=torch.Generator().manual_seed(3))
    scores = [float(loaded["alex"].compute(hr + s * noise, hr)) for s in (0, 0.02, 0.1, 0.3)]
    assert scores[0] == 0
    assert scores == sorted(scores)


def counted(lpips_of, patch):
    """How many images pass the trunk from here on, as a list that grows."""
    passed, features = [], lpips_of.features
    patch.setattr(lpips_of, "features", lambda x: (passed.append(len(x)), features(x))[1])
    return passed


def test_an_original_passes_the_trunk_once_for_all_its_draws(loaded, monkeypatch):
    (a, b), hr = pair(2)[0], pair(1)[1]
    fresh = Lpips(loaded["squeeze"]._model, "squeeze")
    passed = counted(fresh, monkeypatch)
    first = fresh.compute(torch.stack([a, b]), hr.repeat(2, 1, 1, 1))
    again = fresh.compute(b[None], hr)
    assert sum(passed) == 3 + 1
    assert torch.equal(first[1:], again)


def test_an_original_changed_in_one_pixel_is_another(loaded):
    sr, hr = pair(1)
    fresh = Lpips(loaded["squeeze"]._model, "squeeze")
    before, changed = fresh.compute(sr, hr), hr.clone()
    changed[0, 0, 30, 30] += 0.25
    assert float(fresh.compute(sr, changed)) != float(before)


def test_kept_features_stay_within_their_bytes(loaded, monkeypatch):
    _, hr = pair(3)
    one = sum(layer.numel() * 4 for layer in loaded["squeeze"].features(hr[:1])[0])
    fresh = Lpips(loaded["squeeze"]._model, "squeeze", kept_bytes=2 * one)
    passed = counted(fresh, monkeypatch)
    for i in (0, 1, 0, 2, 0, 1):  # 2 drops 1, which was used before 0
        fresh.reference(hr[i : i + 1])
    assert passed == [1, 1, 1, 1]


@pytest.mark.parametrize("net", TRUNKS)
def test_without_its_trunk_the_command_is_named_and_nothing_is_downloaded(
    net, tmp_path, monkeypatch
):
    def refuse(*args):
        raise AssertionError("asked the network")

    monkeypatch.setenv("PULSE_AUDIT_HOME", str(tmp_path))
    monkeypatch.setattr(socket.socket, "connect", refuse)
    with pytest.raises(InputError, match=f"pulse-audit fetch {TRUNKS[net].weights}$"):
        weights_of(net)


def test_an_unknown_net_is_named_with_the_known_ones():
    with pytest.raises(InputError, match="no LPIPS net vgg19; did you mean vgg"):
        load("vgg19", Path("none"))


@pytest.fixture
def put(trunks, tmp_path, monkeypatch):
    """Put content into the cache as the fetched SqueezeNet."""
    monkeypatch.setenv("PULSE_AUDIT_HOME", str(tmp_path))
    card = published.get(TRUNKS["squeeze"].weights)

    def write(content):
        path = published.path_of(card)
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
        published.record(card, file_sha256(path), "test")

    return write


class Malicious:
    def __reduce__(self):
        return (Path.touch, (Path("executed"),))


def test_a_file_that_would_run_code_is_refused_and_does_not_run(put, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    put(pickle.dumps(Malicious(), protocol=2))
    with pytest.raises(InputError, match="holds no plain weights"):
        load("squeeze", weights_of("squeeze"))
    assert not Path("executed").exists()


def stored(content, path):
    torch.save(content, path)
    return path.read_bytes()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"features.0.weight": torch.zeros(1)}, "does not hold the weights of this LPIPS network"),
        ([1, 2], "holds a list, not tensors by name"),
    ],
)
def test_a_file_of_something_else_is_refused_in_one_line(content, message, put, tmp_path):
    put(stored(content, tmp_path / "made.pt"))
    with pytest.raises(InputError, match=message) as raised:
        load("squeeze", weights_of("squeeze"))
    assert "\n" not in str(raised.value)
    assert "delete it and fetch it again" in str(raised.value)


def test_a_file_with_wrong_shapes_is_refused(put, trunks, tmp_path):
    state = state_of(trunks["squeeze"]) | {"features.0.weight": torch.zeros(2, 3, 3, 3)}
    put(stored(state, tmp_path / "made.pt"))
    with pytest.raises(InputError, match=r"size mismatch for slice1\.0\.weight"):
        load("squeeze", weights_of("squeeze"))


def test_building_a_network_leaves_the_random_numbers_alone():
    before = torch.random.get_rng_state()
    bare("squeeze")
    assert torch.equal(torch.random.get_rng_state(), before)


def test_settings_of_the_gpu_library_are_given_back():
    before = torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark
    with perceptual._full_float32():
        assert not torch.backends.cudnn.allow_tf32
    assert (torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark) == before


def test_shapes_that_differ_are_refused(loaded):
    with pytest.raises(ValueError, match="must be batches of one shape"):
        loaded["alex"].compute(torch.zeros(2, 3, 64, 64), torch.zeros(1, 3, 64, 64))
