"""Photos by hand: marks, record, contact sheet, and commands that go on where they stopped."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pulse_audit import __version__
from pulse_audit.generators.adapt import as_generator
from pulse_audit.harness.sheet import GAP, LINE, TILE, Tile, contact_sheet
from pulse_audit.harness.single import upsample_photos
from pulse_audit.search.memory import BUDGET, LARGEST_BATCH, images_at_once, saved_bytes
from pulse_audit.seeding import sha256
from pulse_audit.types import InputError


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    pixels = np.random.default_rng(0).integers(90, 170, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


class Reports(list[tuple[int, int, int]]):
    """Progress that is kept; raises as Ctrl-C does once ``stop`` steps are done."""

    stop = 10**9

    def __call__(self, done: int, total: int, restored: int) -> None:
        self.append((done, total, restored))
        if done >= self.stop:
            raise KeyboardInterrupt


def upsampled(
    photo: Path, generator: str, reports: Reports, **changed: Any
) -> list[dict[str, Any]]:
    settings = {
        **{"scale": 4, "draws": 2, "seed": 0, "search": "official", "align": False},
        **{"is_lr": False, "device": "cpu", "out": photo.parent / "up"},
        **changed,
    }
    return upsample_photos([photo], generator=generator, progress=reports, **settings)


def test_outputs_say_that_they_are_synthetic(photo: Path, tiny_generator: str) -> None:
    reports = Reports()
    rows = upsampled(photo, tiny_generator, reports)
    out = photo.parent / "up"
    for index, row in enumerate(rows):
        with Image.open(out / f"photo_{index}.png") as image:
            assert "not a photo, not evidence of anyone's identity" in image.text["Description"]
            assert image.text["Software"] == f"pulse-audit {__version__}"
            assert image.text["Seed"] == str(row["seed"]) and image.text["Generator"]
    # The input is the photo's own, and says nothing of the kind.
    with Image.open(out / "photo_lr.png") as image:
        assert image.text == {}
    record = json.loads((out / "photo.json").read_bytes())
    assert "none is the person in the photo" in record["warning"]
    assert record["settings"]["photo"]["sha256"] == sha256(photo.read_bytes())
    assert record["settings"]["generator"]["resolution"] == 32
    assert 1 <= record["memory"]["images_at_once"] <= LARGEST_BATCH
    assert [row["seed"] for row in record["draws"].values()] == [row["seed"] for row in rows]
    # Every step of every draw is counted, once.
    assert reports[0] == (0, 200, 0) and reports[-1] == (200, 200, 0)
    assert [r[0] for r in reports] == sorted(r[0] for r in reports)
    with Image.open(out / "photo_sheet.png") as sheet:
        assert sheet.width == 5 * (TILE + GAP) + GAP
        assert "Contact sheet" in sheet.text["Description"]


def test_a_command_goes_on_where_it_was_interrupted(
    photo: Path, tiny_generator: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pulse_audit.harness.single.images_at_once", lambda *of: 1)
    whole = photo.parent / "whole"
    upsampled(photo, tiny_generator, Reports(), out=whole)
    # Interrupted within the second draw: the first is there, whole, and nothing else.
    reports, out = Reports(), photo.parent / "up"
    reports.stop = 150
    with pytest.raises(KeyboardInterrupt):
        upsampled(photo, tiny_generator, reports)
    assert {path.name for path in out.iterdir()} == {"photo.json", "photo_0.png", "photo_lr.png"}
    first = (out / "photo_0.png").stat().st_mtime_ns
    reports = Reports()
    upsampled(photo, tiny_generator, reports)
    assert reports[0] == (100, 200, 100) and reports[-1] == (200, 200, 100)
    assert (out / "photo_0.png").stat().st_mtime_ns == first
    for name in ("photo_0.png", "photo_1.png", "photo_lr.png", "photo_sheet.png"):
        assert (out / name).read_bytes() == (whole / name).read_bytes(), name


def test_progress_never_falls_where_draws_stop_early(photo: Path, tiny_generator: str) -> None:
    reports = Reports()
    rows = upsampled(photo, tiny_generator, reports, search="fast", draws=4)
    assert len({row["steps"] for row in rows}) > 1
    shares = [done for done, _, _ in reports]
    assert shares == sorted(shares) and shares[-1] == 400


def test_draws_of_other_settings_or_damaged_ones_are_made_again(
    photo: Path, tiny_generator: str
) -> None:
    out = photo.parent / "up"
    upsampled(photo, tiny_generator, Reports())
    right = (out / "photo_1.png").read_bytes()
    # Nothing is left to do.
    reports = Reports()
    upsampled(photo, tiny_generator, reports)
    assert reports == [(200, 200, 200)]
    # A file that is not the one recorded, another seed, a record that is none.
    (out / "photo_1.png").write_bytes(b"")
    reports = Reports()
    upsampled(photo, tiny_generator, reports)
    assert reports[0] == (100, 200, 100)
    reports = Reports()
    upsampled(photo, tiny_generator, reports, seed=1)
    assert reports[0] == (0, 200, 0) and (out / "photo_1.png").read_bytes() != right
    (out / "photo.json").write_text('{"settings": []}')
    reports = Reports()
    upsampled(photo, tiny_generator, reports)
    assert reports[0] == (0, 200, 0) and (out / "photo_1.png").read_bytes() == right


def test_outputs_never_overwrite_a_photo_or_each_other(photo: Path, tiny_generator: str) -> None:
    twin = photo.with_suffix(".jpg")
    Image.open(photo).save(twin)
    with pytest.raises(InputError, match="would have the names"):
        upsample_photos(
            [photo, twin], generator=tiny_generator, scale=4, draws=1, seed=0, search="official",
            align=False, is_lr=False, device="cpu", out=photo.parent / "up", progress=Reports(),
        )  # fmt: skip
    output = photo.rename(photo.with_name("x_0.png"))
    source = output.with_name("x.png")
    source.write_bytes(output.read_bytes())
    with pytest.raises(InputError, match="is one of the photos"):
        upsample_photos(
            [source, output], generator=tiny_generator, scale=4, draws=1, seed=0, search="official",
            align=False, is_lr=False, device="cpu", out=source.parent, progress=Reports(),
        )  # fmt: skip
    assert not (photo.parent / "up").exists()


def test_memory_is_counted_and_batches_keep_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    # x -> (x w) ** 2 saves x (8 values), w, x w and little else: known by hand.
    weight = torch.nn.Parameter(torch.ones(64, 3 * 16 * 16))

    class Square(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = weight

        def forward(self, z: torch.Tensor) -> torch.Tensor:
            return (z @ self.weight).square().unflatten(1, (3, 16, 16))

    generator = as_generator(Square(), latent_dim=64)
    image = 4 * 3 * 16 * 16
    # The weights, x w, and the picture on its way to [0, 1]; z has 64 values.
    counted = saved_bytes(generator, torch.device("cpu"))
    assert 4 * weight.numel() + 2 * image <= counted <= 4 * weight.numel() + 4 * image
    assert images_at_once(generator, torch.device("cpu")) == BUDGET // counted
    monkeypatch.setattr("pulse_audit.search.memory.BUDGET", counted - 1)
    assert images_at_once(generator, torch.device("cpu")) == 1
    assert images_at_once(generator, torch.device("cuda")) is None


def test_a_contact_sheet_shows_pixels_as_squares_and_the_crop_as_a_figure() -> None:
    small = np.zeros((2, 2, 3), np.uint8)
    small[0, 0] = 200
    grey = np.full((100, 50, 3), 128, np.uint8)
    corners = np.array([[10.0, 10.0], [40.0, 10.0], [40.0, 40.0], [10.0, 40.0]])
    tiles = [Tile(grey, ("photo",), corners), Tile(small, ("input",), magnified=True)]
    sheet = np.asarray(contact_sheet(tiles, "title", "warning"))
    upper, left = LINE + 2 * GAP, 2 * GAP + TILE
    square = sheet[upper : upper + TILE, left : left + TILE]
    assert (square[: TILE // 2, : TILE // 2] == 200).all()
    assert (square[TILE // 2 :, TILE // 2 :] == 0).all()
    # A photo of 50 x 100 px at 2.88 pixels each: the figure runs along row 10.
    row = sheet[upper + round(10 * TILE / 100), GAP + round(25 * TILE / 100)]
    assert tuple(row) == (230, 60, 20)
