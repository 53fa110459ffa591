"""FSRNet's network and the arms made of it."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pulse_audit.degrade.degradation import DegradationModel
from pulse_audit.degrade.resample import downscale, resize
from pulse_audit.harness.plan import plan_audit
from pulse_audit.harness.run import run_audit
from pulse_audit.harness.spec import make_spec
from pulse_audit.listing import rows_of
from pulse_audit.metrics.fidelity import psnr
from pulse_audit.models.arms import arm_sha256, build_arm, find_arm
from pulse_audit.models.shipped import ASSETS, shipped_file
from pulse_audit.names import NETWORKS, parse_arm
from pulse_audit.search.config import preset
from pulse_audit.types import InputError, Request, Status
from pulse_audit.upsamplers.fsrnet import (
    FSRNet,
    FSRNetConfig,
    FSRNetUpsampler,
    load_fsrnet,
    save_fsrnet,
)

TINY = FSRNetConfig(
    scale=2, resolution=16, heatmaps=5, parsing_maps=8, width=4, encoder_blocks=2, depth=2
)
CARD = {"crop": "fairface-0.25", "caveats": ["a test"]}
Make = Callable[..., list[Request]]
shipped = pytest.mark.skipif(
    not all(shipped_file(name).is_file() for name in NETWORKS),
    reason="no weights of FSRNet and FSRGAN ship yet",
)


@pytest.fixture
def network() -> FSRNet:
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        return FSRNet(TINY)


@pytest.fixture
def arm(network: FSRNet) -> FSRNetUpsampler:
    return FSRNetUpsampler("fsrnet", network, CARD, "00", resize, torch.device("cpu"))


def test_the_default_is_the_paper_s_network() -> None:
    network = FSRNet().eval()
    with torch.no_grad():
        output = network(torch.zeros(1, 3, 32, 32))  # any multiple of 32; 128 takes seconds
    assert output.coarse.shape == output.image.shape == (1, 3, 32, 32)
    assert output.heatmaps.shape == (1, 194, 16, 16)
    assert output.parsing.shape == (1, 11, 16, 16)
    blocks = [type(layer).__name__ for layer in network.encoder].count("ResidualBlock")
    assert (blocks, len(network.prior.hourglasses), network.config.lr_size) == (12, 2, 16)


def test_no_two_blocks_share_their_weights(network: FSRNet) -> None:
    pointers = [p.data_ptr() for p in network.parameters()]
    assert len(set(pointers)) == len(pointers)
    # 64 px from 8 px with 16 channels: 2 x 9 x 16 x 16 weights and 64 of normalisation a block.
    block = FSRNet(FSRNetConfig(resolution=64, width=16)).encoder[3]
    assert sum(p.numel() for p in block.parameters()) == 2 * (9 * 16 * 16) + 4 * 16


def test_the_decoder_is_fed_the_maps(network: FSRNet) -> None:
    network.eval()
    enlarged = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        output = network(enlarged)
        features = network.encoder(output.coarse * 2 - 1)
        maps = torch.cat([features, output.heatmaps, output.parsing], 1)
        again = (network.decoder(maps) + 1) / 2
    torch.testing.assert_close(output.image, again)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 5}, "odd"),
        ({"width": 0}, "width has to be a whole number above 0"),
        ({"scale": 3}, "no multiple"),
        ({"depth": 9}, "no multiple"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        FSRNetConfig(**changes)


def test_weights_and_card_come_back(network: FSRNet, tmp_path: Path) -> None:
    save_fsrnet(network, tmp_path / "net.safetensors", CARD)
    loaded, card, digest = load_fsrnet(tmp_path / "net.safetensors")
    assert card == CARD and len(digest) == 64 and loaded.config == TINY
    for name, value in loaded.state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(value, network.state_dict()[name].half().float())


def test_a_card_of_another_network_or_a_damaged_one_is_refused(
    network: FSRNet, tmp_path: Path
) -> None:
    path = tmp_path / "net.safetensors"
    save_fsrnet(network, path, CARD)
    content = json.loads(path.with_suffix(".json").read_text())
    other = {**content, "network": {**content["network"], "width": 8}}
    path.with_suffix(".json").write_text(json.dumps(other))
    with pytest.raises(InputError, match="do not fit their card"):
        load_fsrnet(path)
    for damaged in ({"network": {"sides": 3}}, {"card": {"crop": "ffhq"}}):
        path.with_suffix(".json").write_text(json.dumps({**content, **damaged}))
        with pytest.raises(InputError, match="damaged card"):
            load_fsrnet(path)
    path.write_bytes(path.read_bytes() + b"0")
    with pytest.raises(InputError, match="another SHA-256"):
        load_fsrnet(path)


def test_outputs_are_the_network_s_and_do_not_depend_on_their_batch(
    arm: FSRNetUpsampler, network: FSRNet, requests: Make
) -> None:
    inputs, degradation = requests(faces=3), DegradationModel("clean", 2)
    results = arm(inputs, degradation)
    for request, result in zip(inputs, results, strict=True):
        assert result.image is not None and result.status is Status.OK
        enlarged = resize(request.lr[None], 16).clamp(0, 1)
        with torch.no_grad():
            expected = network(enlarged).image.clamp(0, 1)[0]
        torch.testing.assert_close(result.image, expected)
        alone = arm([request], degradation)[0]
        assert torch.equal(alone.image, result.image)
        error = (downscale(result.image[None], 2)[0] - request.lr).square().mean()
        assert result.downscale_error == pytest.approx(float(error), rel=1e-5)


def test_the_factor_is_the_weights_whatever_the_run_s(arm: FSRNetUpsampler, requests: Make) -> None:
    """A run at 32 px and scale 4 has the same 8 px inputs; the output is of the weights' size."""
    by_run = [arm(requests(faces=1), DegradationModel("clean", scale))[0] for scale in (2, 4)]
    assert torch.equal(by_run[0].image, by_run[1].image)
    assert by_run[0].downscale_error == by_run[1].downscale_error


def test_inputs_of_another_size_are_refused(arm: FSRNetUpsampler, requests: Make) -> None:
    arm.check_scale(4, 8)
    with pytest.raises(InputError, match="takes inputs of 8 px.*are 4 px; choose --scale 4"):
        arm.check_scale(8, 4)
    for result in arm(requests(faces=2, size=4), DegradationModel("clean", 8)):
        assert result.status is Status.ERROR and result.image is None
        assert result.reason == "the input is 4 x 4 px; the weights take 8 px"


def test_an_arm_is_named_after_its_weights_and_built_from_them(
    network: FSRNet, tmp_path: Path
) -> None:
    path = tmp_path / "mine.safetensors"
    reference = parse_arm(f"fsrgan:{path}")
    assert (reference.name, reference.kind) == ("fsrgan:mine", "network")
    with pytest.raises(InputError, match="mine.safetensors: cannot be read"):
        find_arm(reference)
    save_fsrnet(network, path, CARD)
    find_arm(reference)
    built = build_arm(
        reference, preset("fast"), 0, torch.device("cpu"), lambda _: None, lambda _: None
    )
    assert (built.name, built.resolution) == ("fsrgan:mine", 16)
    assert built.describe()["sha256"] == arm_sha256(reference)
    assert {"fsrnet:FILE", "fsrgan:FILE"} <= {row["name"] for row in rows_of("arms", None)}


def test_without_weights_in_the_package_the_arm_says_how_to_get_some(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pulse_audit.models.shipped.ASSETS", tmp_path)
    with pytest.raises(InputError, match="fsrnet: no weights .* give --arm fsrnet:FILE"):
        find_arm(parse_arm("fsrnet"))


def test_a_run_measures_it_beside_bicubic_interpolation(tmp_path: Path) -> None:
    """64 px from the 8 px of a run at 32 px and scale 4: resampled, and said so."""
    config = replace(TINY, scale=8, resolution=64)
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        save_fsrnet(FSRNet(config), tmp_path / "mine.safetensors", CARD)
    spec = {
        "dataset": "synthetic-faces",
        "arms": [f"fsrnet:{tmp_path / 'mine.safetensors'}", "bicubic"],
        "resolution": 32,
        "scales": [4],
        "per_group": 1,
        "limit": 2,
        "draws": 1,
        "threads": 1,
        "attributes": "none",
        "metrics": ["psnr"],
        "keep_images": "none",
    }
    run = run_audit(make_spec(spec), tmp_path / "run")
    entry = run.manifest.arms["fsrnet:mine"]
    assert entry.kind == "network"
    assert entry.notes == ["native size 64 px, resampled to 32 px", "a test"]
    samples = run.samples()
    mine = samples[samples["arm"] == "fsrnet:mine"]
    assert len(mine) == 2 and (mine["status"] == "ok").all()
    assert mine["psnr"].between(3, 40).all() and (mine["downscale_error"] > 0).all()
    with pytest.raises(InputError, match="takes inputs of 8 px, .* are 4 px; choose --scale 4"):
        plan_audit(make_spec({**spec, "scales": [8]}))


@pytest.mark.parametrize("name", NETWORKS)
@shipped
def test_what_ships_takes_the_inputs_of_the_shipped_twins(name: str) -> None:
    network, card, digest = load_fsrnet(shipped_file(name))
    assert (network.config.lr_size, card["crop"]) == (8, "fairface-0.25")
    arm = FSRNetUpsampler(name, network, card, digest, resize, torch.device("cpu"))
    arm.check_scale(4, 8)
    assert arm.describe()["sha256"] == digest and arm.caveats


@shipped
def test_fsrnet_is_nearer_to_synthetic_faces_than_bicubic_interpolation() -> None:
    network, _, _ = load_fsrnet(shipped_file("fsrnet"))
    files = sorted((ASSETS / "synthetic-faces" / "faces-balanced").glob("*.png"))[:12]
    pixels = np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files])
    faces = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    lr = downscale(faces, 4).clamp(0, 1)
    with torch.no_grad():
        large = network.eval()(resize(lr, network.config.resolution).clamp(0, 1)).image.clamp(0, 1)
    gain = psnr(resize(large, 32).clamp(0, 1), faces) - psnr(resize(lr, 32).clamp(0, 1), faces)
    assert gain.mean() > 0.5
