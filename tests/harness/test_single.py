"""Photos by hand: faces, marks, record, pictures, and commands that go on where they stopped."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.data import astronaut

from pulse_audit import __version__
from pulse_audit.cli import outcome
from pulse_audit.generators.adapt import as_generator
from pulse_audit.harness.pictures import GAP as FILM_GAP
from pulse_audit.harness.pictures import PANEL
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
    photos: Path | list[Path], generator: str, reports: Reports, **changed: Any
) -> list[dict[str, Any]]:
    photos = photos if isinstance(photos, list) else [photos]
    settings = {
        **{"scale": 4, "draws": 2, "seed": 0, "search": "official", "align": False},
        **{"is_lr": False, "device": "cpu", "out": photos[0].parent / "up"},
        **changed,
    }
    return upsample_photos(photos, generator=generator, progress=reports, **settings)


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


@pytest.fixture
def portraits(tmp_path: Path) -> Path:
    """A folder: one face in a turned JPEG with metadata, two faces, noise, and no image."""
    folder = tmp_path / "portraits"
    folder.mkdir()
    face = Image.fromarray(astronaut()).crop((110, 0, 350, 240))
    exif = Image.Exif()
    # Orientation 6: shown after a quarter turn to the right. A camera, and where it was.
    exif[0x112], exif[0x10F] = 6, "Camera of Jane Doe"
    exif.get_ifd(0x8825)[1] = "N"
    turned = face.transpose(Image.Transpose.ROTATE_90)
    turned.save(folder / "turned.jpg", quality=95, exif=exif)
    both = Image.new("RGB", (440, 240), (120, 120, 120))
    both.paste(face.resize((160, 160)), (20, 60))
    both.paste(face.transpose(Image.Transpose.FLIP_LEFT_RIGHT), (200, 0))
    both.save(folder / "both.png")
    noise = np.random.default_rng(0).integers(0, 255, (90, 90, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "noise.png")
    (folder / "torn.png").write_bytes(b"no image")
    return folder


def test_every_face_of_every_photo_is_searched_and_the_others_are_named(
    portraits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "up"
    given = ["upsample", str(portraits), "--out", str(out), "--paste", "--search", "fast", "--json"]
    assert outcome(given) == 0
    printed = capsys.readouterr()
    rows = json.loads(printed.out)
    done, failed = rows[:3], rows[3:]
    assert [Path(row["image"]).name for row in done] == [
        "both_face1_0.png", "both_face2_0.png", "turned_0.png",
    ]  # fmt: skip
    assert [(Path(row["photo"]).name, row["status"]) for row in failed] == [
        ("noise.png", "no_face"), ("torn.png", "error"),
    ]  # fmt: skip
    assert all(row["reason"] and row["image"] is None for row in failed)
    assert len({frozenset(row) for row in rows}) == 1
    assert printed.err.count("the other photos go on") == 2
    assert "outputs have 32 px a side, fewer than 3 of 3 faces" in printed.err
    # The photo is upright: its square is that of the same face beside, moved.
    squares = {
        stem: np.array(json.loads((out / f"{stem}.json").read_bytes())["settings"]["square"])
        for stem in ("both_face1", "both_face2", "turned")
    }
    mirrored = np.array([440.0, 0.0]) + squares["turned"][[1, 0, 3, 2]] * [-1, 1]
    np.testing.assert_allclose(squares["both_face2"], mirrored, atol=4)
    np.testing.assert_allclose(squares["both_face1"], squares["turned"] / 1.5 + [20, 60], atol=4)
    # Metadata are in no output.
    for path in out.iterdir():
        assert b"Jane Doe" not in path.read_bytes() and b"Exif" not in path.read_bytes()
    # Faces were replaced where they are, and nothing else.
    with Image.open(out / "both_pasted_0.png") as image, Image.open(portraits / "both.png") as old:
        assert "photo whose faces were replaced" in image.text["Description"]
        changed = np.abs(np.asarray(image, int) - np.asarray(old, int)).max(axis=2)
    for stem in ("both_face1", "both_face2"):
        x, y = squares[stem].mean(axis=0).round().astype(int)
        assert changed[y - 10 : y + 10, x - 10 : x + 10].mean() > 3
    assert not changed[:50, :20].any() and not changed[:, 190:205].any()


def test_where_no_photo_can_be_used_the_command_is_refused(
    portraits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = [str(portraits / name) for name in ("noise.png", "torn.png")]
    assert outcome(["upsample", *bad, "--out", str(tmp_path / "up"), "--quiet"]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and "none of 2 photos can be used" in line
    assert "noise.png: no face found" in line and "torn.png: not an image" in line
    assert not (tmp_path / "up").exists()


def test_a_seed_can_be_typed_and_names_a_draw(photo: Path, tiny_generator: str) -> None:
    rows = upsampled(photo, tiny_generator, Reports(), seed=7, draws=3)
    assert [row["seed"] for row in rows] == [7, 8, 9]
    again = upsampled(photo, tiny_generator, Reports(), seed=8, draws=1, out=photo.parent / "one")
    pictures = [np.asarray(Image.open(row["image"]), int) for row in (rows[1], again[0])]
    # Batches differ by rounding.
    assert np.abs(pictures[0] - pictures[1]).max() <= 1
    assert np.abs(pictures[0] - np.asarray(Image.open(rows[0]["image"]), int)).max() > 5


def test_a_search_is_drawn_the_same_twice_and_added_to_draws_without(
    photo: Path, tiny_generator: str
) -> None:
    plain = upsampled(photo, tiny_generator, Reports())
    assert [row["gif"] for row in plain] == [None, None]
    reports = Reports()
    rows = upsampled(photo, tiny_generator, reports, gif=True)
    assert reports[0] == (0, 200, 0)
    assert [row["sha256"] for row in rows] == [row["sha256"] for row in plain]
    again = upsampled(photo, tiny_generator, Reports(), gif=True, out=photo.parent / "again")
    for row, other in zip(rows, again, strict=True):
        assert Path(row["gif"]).read_bytes() == Path(other["gif"]).read_bytes()
        with Image.open(row["gif"]) as film, Image.open(row["image"]) as output:
            assert (
                film.n_frames == 25 and b"not evidence of anyone's identity" in film.info["comment"]
            )
            # The last frame shows the output, each of its pixels as a square.
            film.seek(24)
            shown = np.asarray(film.convert("RGB"), int)
            left = 2 * FILM_GAP + PANEL
            panel = shown[FILM_GAP : FILM_GAP + PANEL, left : left + PANEL]
            error = np.abs(panel[4::8, 4::8] - np.asarray(output, int))
            assert error.mean() < 4 and film.info["duration"] == 2000
    # A film that is gone is drawn again.
    Path(rows[1]["gif"]).unlink()
    reports = Reports()
    upsampled(photo, tiny_generator, reports, gif=True)
    assert reports[0] == (100, 200, 100) and Path(rows[1]["gif"]).is_file()
    # Folders may move.
    moved = (photo.parent / "up").rename(photo.parent / "moved")
    reports = Reports()
    rows = upsampled(photo, tiny_generator, reports, gif=True, paste=True, out=moved)
    assert reports == [(200, 200, 200)]
    for row in rows:
        assert all(Path(row[kind]).parent == moved for kind in ("image", "gif", "pasted"))


def test_an_input_has_no_photo_to_paste_into(photo: Path, tiny_generator: str) -> None:
    with pytest.raises(InputError, match="no photo to paste into"):
        upsampled(photo, tiny_generator, Reports(), paste=True, is_lr=True)


def test_without_alignment_the_centre_of_the_photo_is_replaced(
    photo: Path, tiny_generator: str
) -> None:
    wide = photo.with_name("wide.png")
    with Image.open(photo) as square:
        square.resize((64, 40)).save(wide)
    row = upsampled(wide, tiny_generator, Reports(), paste=True, draws=1)[0]
    assert row["photo_px"] == 40 and row["output_px"] == 32
    with Image.open(row["pasted"]) as new, Image.open(wide) as old:
        changed = np.abs(np.asarray(new, int) - np.asarray(old, int)).max(axis=2)
    assert not changed[:, :12].any() and not changed[:, 52:].any()
    assert changed[10:30, 22:42].mean() > 3


def test_a_photo_that_changes_under_the_search_is_refused(photo: Path, tiny_generator: str) -> None:
    class Swap(Reports):
        def __call__(self, done: int, total: int, restored: int) -> None:
            Image.new("RGB", (40, 40)).save(photo)

    with pytest.raises(InputError, match="changed while it was searched"):
        upsampled(photo, tiny_generator, Swap())
