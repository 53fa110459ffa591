"""Training FSRNet: maps by recipe, losses, steps that resume, a card that tells the truth."""

import io
import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from facenet_pytorch.models.mtcnn import ONet
from PIL import Image

from pulse_audit.faces.align import FaceAligner
from pulse_audit.faces.crops import FAIRFACE_025
from pulse_audit.models.shipped import ASSETS
from pulse_audit.training import fsr
from pulse_audit.training.cards import upsampler_card
from pulse_audit.training.config import FSRConfig, read_fsr_config
from pulse_audit.training.data import TrainingSet
from pulse_audit.training.face_maps import (
    REGIONS,
    SPREAD,
    find_landmarks,
    heatmaps,
    parsing_maps,
)
from pulse_audit.training.fsr_trainer import (
    FaceTargets,
    FSRTrainer,
    adversarial_loss,
    discriminator_loss,
    enlarged_inputs,
    reconstruction_losses,
)
from pulse_audit.types import InputError
from pulse_audit.upsamplers.fsrnet import FSRNetOutput, load_fsrnet

FRONTAL = torch.from_numpy(FAIRFACE_025).float()[None]


def tiny(name: str = "fsrnet", **changes: object) -> FSRConfig:
    small = {"name": name, "width": 4, "batch": 4, "steps": 16, "precision": "float32"}
    return FSRConfig(**{**read_fsr_config(f"{name}-32").model_dump(), **small, **changes})


@pytest.fixture
def photos() -> TrainingSet:
    """Twelve smooth photos of 32 px."""
    random = torch.Generator().manual_seed(0)
    small = torch.rand(12, 3, 8, 8, generator=random)
    images = torch.nn.functional.interpolate(small, 32, mode="bilinear")
    pixels = (images * 255).byte().permute(0, 2, 3, 1).numpy()
    names = tuple(f"{index}.png" for index in range(12))
    return TrainingSet(pixels, names, ("A", "B") * 6, names)


def trainer(config: FSRConfig, photos: TrainingSet) -> FSRTrainer:
    landmarks = FRONTAL.repeat(len(photos.images), 1, 1).numpy()
    landmarks[::5] = np.nan
    return FSRTrainer(config, photos, landmarks, torch.device("cpu"))


def test_a_heatmap_is_a_gaussian_around_its_landmark() -> None:
    # On the centre of pixel (20, 9) of 64, and two standard deviations (4 px) beside it.
    point = torch.tensor([[[20.5 / 64, 9.5 / 64]]])
    map_ = heatmaps(point, 64)[0, 0]
    assert SPREAD * 64 == 2
    assert map_[9, 20] == pytest.approx(1)
    for row, column in ((9, 24), (9, 16), (13, 20), (5, 20)):
        assert map_[row, column] == pytest.approx(math.exp(-2))
    # Its integral, in pixels: 2 pi sigma^2.
    assert map_.sum() == pytest.approx(2 * math.pi * 4, rel=0.01)


def test_regions_lie_where_the_landmarks_are() -> None:
    maps = dict(zip(REGIONS, parsing_maps(FRONTAL, 128)[0], strict=True))
    places = zip(("left eye", "right eye"), FRONTAL[0, :2].tolist(), strict=True)
    for name, (x, y) in places:
        row, column = int(128 * y), int(128 * x)
        assert maps[name][row, column] == 1 and maps["skin"][row, column] == 0
        # The brow is above the eye, in the picture.
        brow = maps[name.replace("eye", "brow")]
        assert brow[row - round(0.32 * 0.362 * 128), column] == 1 and brow[row, column] == 0
    mouth, nose = FRONTAL[0, 3:].mean(0) * 128, FRONTAL[0, 2] * 128
    assert maps["mouth"][int(mouth[1]), int(mouth[0])] == 1
    assert maps["nose"][int(nose[1]), int(nose[0])] == 1
    assert maps["background"][0, 0] == maps["background"][-1, -1] == 1
    # An ellipse of half axes 0.24 and 0.13 has the area pi 0.24 0.13 in units of the face.
    unit = 128 * float(FRONTAL[0, 1, 0] - FRONTAL[0, 0, 0])
    assert maps["left eye"].sum() == pytest.approx(math.pi * 0.24 * 0.13 * unit**2, rel=0.05)
    # Shares of a pixel, that of all regions 1 but where soft edges meet.
    total = torch.stack(list(maps.values())).sum(0)
    assert min(m.min() for m in maps.values()) >= 0 and max(m.max() for m in maps.values()) <= 1
    assert (total - 1).abs().mean() < 0.01


def test_maps_turn_and_mirror_with_the_face() -> None:
    x, y = FRONTAL[..., 0], FRONTAL[..., 1] + 0.05
    turned = parsing_maps(torch.stack([y, 1 - x], -1), 64)
    upright = parsing_maps(torch.stack([x, y], -1), 64)
    torch.testing.assert_close(turned, torch.rot90(upright, 1, (2, 3)), atol=1e-4, rtol=0)
    mirrored = torch.stack([1 - x, y], -1)[:, [1, 0, 2, 4, 3]]
    order = [0, 1, 3, 2, 5, 4, 6, 7]
    torch.testing.assert_close(
        parsing_maps(mirrored, 64)[:, order], upright.flip(3), atol=1e-4, rtol=0
    )


def test_landmarks_agree_with_the_whole_detector() -> None:
    files = sorted((ASSETS / "synthetic-faces" / "faces-balanced").glob("*.png"))[:6]
    pixels = np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files])
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    landmarks, found = find_landmarks(ONet().eval(), images)
    detected = FaceAligner().find_prepared(images, "fairface-0.25")
    distances = [
        np.abs(mine.numpy() - face.landmarks / 32).max()
        for mine, seen, face in zip(landmarks, found, detected, strict=True)
        if seen and face is not None
    ]
    assert len(distances) >= 4 and np.median(distances) < 0.05


def test_nothing_is_no_face() -> None:
    _, found = find_landmarks(ONet().eval(), torch.full((2, 3, 64, 64), 0.5))
    assert not found.any()


def test_gradients_of_the_squared_errors_are_closed_forms() -> None:
    random = torch.Generator().manual_seed(3)
    parts = {"coarse": (3, 8, 8), "heatmaps": (5, 4, 4), "parsing": (8, 4, 4), "image": (3, 8, 8)}
    given = {
        name: torch.rand(3, *shape, generator=random, dtype=torch.float64).requires_grad_()
        for name, shape in parts.items()
    }
    due = {name: torch.rand_like(value) for name, value in given.items() if name != "coarse"}
    known = torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64)
    losses = reconstruction_losses(FSRNetOutput(**given), FaceTargets(**due, known=known))
    # d/dy of 4 mean (y - t)^2 is 8 (y - t) / (n c h w).
    for name in ("image", "coarse"):
        (gradient,) = torch.autograd.grad(losses[name], given[name])
        expected = 8 * (given[name] - due["image"]) / (3 * 3 * 8 * 8)
        torch.testing.assert_close(gradient, expected.detach())
    # Of the maps 2 (p - q) / (k h w) over the two faces with landmarks, 0 for the other.
    for name in ("heatmaps", "parsing"):
        (gradient,) = torch.autograd.grad(losses[name], given[name])
        size = given[name][0].numel()
        expected = 2 * (given[name] - due[name]) / (2 * size) * known[:, None, None, None]
        torch.testing.assert_close(gradient, expected.detach())


def test_maps_of_faces_without_landmarks_cost_nothing() -> None:
    maps = {"heatmaps": torch.ones(2, 5, 4, 4), "parsing": torch.ones(2, 8, 4, 4)}
    image = torch.zeros(2, 3, 8, 8)
    output = FSRNetOutput(image, 2 * maps["heatmaps"], 2 * maps["parsing"], image)
    losses = reconstruction_losses(output, FaceTargets(image, **maps, known=torch.zeros(2)))
    assert all(float(loss) == 0 for loss in losses.values())


def test_gradients_of_the_adversarial_losses_are_closed_forms() -> None:
    random = torch.Generator().manual_seed(4)
    real, fake = torch.randn(2, 3, 1, 2, 2, generator=random, dtype=torch.float64).requires_grad_()
    n = real.numel()
    of_real, of_fake = torch.autograd.grad(discriminator_loss(real, fake), (real, fake))
    torch.testing.assert_close(of_real, -torch.sigmoid(-real.detach()) / n)
    torch.testing.assert_close(of_fake, torch.sigmoid(fake.detach()) / n)
    (of_network,) = torch.autograd.grad(adversarial_loss(fake), fake)
    torch.testing.assert_close(of_network, -torch.sigmoid(-fake.detach()) / n)
    # An even chance costs log 2 for each term.
    assert discriminator_loss(0 * real, 0 * fake).item() == pytest.approx(2 * math.log(2))


def test_training_lowers_every_loss(photos: TrainingSet) -> None:
    run = trainer(tiny(), photos)
    losses = [run.advance() for _ in range(16)]
    for name in ("image", "coarse", "heatmaps", "parsing"):
        first, last = (np.mean([row[name] for row in rows]) for rows in (losses[:3], losses[-3:]))
        assert last < 0.8 * first, name


def test_a_mirrored_face_has_the_maps_of_its_mirrored_landmarks(photos: TrainingSet) -> None:
    run = trainer(tiny(batch=12), photos)
    target = run.batch()
    rows = photos.rows(0, 12, run.config.seed)
    original = torch.from_numpy(photos.images[rows]).permute(0, 3, 1, 2).float() / 255
    mirrored = [not torch.equal(a, b) for a, b in zip(target.image, original, strict=True)]
    assert 0 < sum(mirrored) < 12
    assert target.known.sum() == sum(row % 5 > 0 for row in rows)
    # The frontal face is symmetrical, so its maps are the same either way.
    known = target.known.bool()
    expected = heatmaps(FRONTAL, 16).expand(int(known.sum()), -1, -1, -1)
    torch.testing.assert_close(target.heatmaps[known], expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", ["fsrnet", "fsrgan"])
def test_a_resumed_run_equals_an_undisturbed_one(
    name: str, photos: TrainingSet, tmp_path: Path
) -> None:
    config = tiny(name)
    undisturbed, begun, resumed = (trainer(config, photos) for _ in range(3))
    rows = [undisturbed.advance() for _ in range(4)]
    for _ in range(2):
        begun.advance()
    begun.save(tmp_path)
    assert resumed.resume(tmp_path) and resumed.step == 2
    assert [resumed.advance() for _ in range(2)] == rows[2:]
    for one, other in (
        (undisturbed.network, resumed.network),
        (undisturbed.discriminator, resumed.discriminator),
    ):
        for key, value in one.state_dict().items():
            assert torch.equal(value, other.state_dict()[key]), key


def test_fsrgan_begins_with_fsrnet_s_network(photos: TrainingSet, tmp_path: Path) -> None:
    first, second = trainer(tiny(), photos), trainer(tiny("fsrgan"), photos)
    first.advance()
    first.save(tmp_path)
    second.start_from(tmp_path / "state.pt")
    pairs = zip(first.network.parameters(), second.network.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)
    assert set(second.advance()) >= {"adversarial", "discriminator", "perceptual"}


def test_foreign_and_damaged_states_are_refused(photos: TrainingSet, tmp_path: Path) -> None:
    run = trainer(tiny(), photos)
    assert not run.resume(tmp_path)
    run.save(tmp_path)
    with pytest.raises(InputError, match="another configuration"):
        trainer(tiny(seed=99), photos).resume(tmp_path)
    (tmp_path / "state.pt").write_bytes(b"damaged")
    with pytest.raises(InputError, match="damaged state"):
        run.resume(tmp_path)


@pytest.mark.parametrize("side", [32, 64])
def test_the_shipped_configurations_differ_in_what_makes_a_gan(side: int) -> None:
    one, other = (read_fsr_config(f"{name}-{side}").model_dump() for name in ("fsrnet", "fsrgan"))
    assert {key for key in one if one[key] != other[key]} <= {
        "name", "seed", "steps", "learning_rate", "adversarial", "perceptual", "discriminator_rate",
    }  # fmt: skip
    with pytest.raises(ValueError, match="both 0 or both above 0"):
        tiny(adversarial=0.1)
    config = tiny(steps=100, warmup=0.1)
    rates = [config.rate(step) for step in range(100)]
    assert max(rates) == pytest.approx(config.learning_rate, rel=0.1)
    assert rates.index(max(rates)) in (9, 10) and 0 < rates[-1] < 0.01 * max(rates)


@pytest.mark.skipif(
    not (ASSETS / "fsrgan.json").is_file(), reason="no weights of FSRNet and FSRGAN ship yet"
)
@pytest.mark.parametrize("name", ["fsrnet", "fsrgan"])
def test_what_ships_was_trained_on_the_balanced_twin_s_photos(name: str) -> None:
    twin = json.loads((ASSETS / "faces-balanced.json").read_text())["card"]
    card = json.loads((ASSETS / f"{name}.json").read_text())["card"]
    assert card["photos_sha256"] == twin["photos_sha256"]
    assert card["composition"] == twin["composition"]
    assert card["configuration"] == read_fsr_config(f"{name}-32").model_dump(mode="json")


def test_a_card_holds_what_is_measured_on_faces_that_were_held_out(tmp_path: Path) -> None:
    rows, source = [], np.random.default_rng(0)
    for number in range(48):
        pixels = source.integers(60, 200, (4, 4, 3)).astype(np.uint8)
        file = io.BytesIO()
        Image.fromarray(pixels).resize((32, 32), Image.Resampling.BICUBIC).save(file, "PNG")
        labels = {"race": "AB"[number % 2], "gender": "FM"[number // 2 % 2], "age": "20-29"}
        rows.append({"file": f"train/{number}.png", "image": file.getvalue(), **labels})
    pd.DataFrame(rows).to_parquet(tmp_path / "faces.parquet")
    config = tiny(composition={"A": 16, "B": 16}, held_out_per_cell=4, steps=3)
    path = tmp_path / "tiny.yaml"
    path.write_text(json.dumps(config.model_dump(mode="json")))
    options = ["--config", str(path), "--state", str(tmp_path / "state")]
    options += ["--data", str(tmp_path / "faces.parquet")]
    for words in (
        ["train", *options, "--device", "cpu"],
        ["export", *options, "--per-cell", "3", "--out", str(tmp_path / "out")],
    ):
        result = CliRunner().invoke(fsr.main, words, catch_exceptions=False)
        assert result.exit_code == 0, result.output

    network, card, _ = load_fsrnet(tmp_path / "out" / "fsrnet.safetensors")
    measured = card["measured"]
    assert (card["steps"], measured["faces"], set(measured["gain_by_race"])) == (3, 12, {"A", "B"})
    # The same number from the loaded weights and the formula of PSNR.
    training, _ = fsr.prepare(config, tmp_path / "state", tmp_path / "faces.parquet")
    faces = fsr.read_faces(tmp_path / "faces.parquet")
    held_out = faces[faces["file"].isin(fsr.held_out_files(faces, 3, config.faces_seed))]
    assert not set(held_out["file"]) & set(training.files)
    pixels = np.stack([np.asarray(Image.open(io.BytesIO(one))) for one in held_out["image"]])
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    enlarged = enlarged_inputs(images, config.scale)
    with torch.no_grad():
        answer = network.eval()(enlarged).image.clamp(0, 1)
    errors = [((one - images) ** 2).mean((1, 2, 3)) for one in (answer, enlarged)]
    psnr, bicubic = (float((-10 * error.log10()).mean()) for error in errors)
    text = upsampler_card("fsrnet", json.loads((tmp_path / "out" / "fsrnet.json").read_text()))
    assert f"| bicubic | {measured['bicubic_psnr']:.3f} |" in text
    assert f"over bicubic interpolation: {measured['gain']:.2f} dB" in text
    assert measured["network_psnr"] == pytest.approx(psnr, abs=1e-3)
    assert measured["gain"] == pytest.approx(psnr - bicubic, abs=2e-3)
