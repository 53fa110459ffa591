"""Outputs made elsewhere: found by name, numbered draws, missing and unusable ones."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pulse_audit.degrade.degradation import DegradationModel
from pulse_audit.models.arms import read_picture
from pulse_audit.names import OutputPattern, parse_arm, parse_folder
from pulse_audit.types import InputError, Request, Status
from pulse_audit.upsamplers.folder import Folder, folder_sha256, picture_names, setting_folder

Make = Callable[..., list[Request]]
CLEAN, NOISY = ("clean", 4), ("gaussian:25", 4)
NAMES = {f"val/{i}.jpg": f"val-{i}" for i in range(3)}


def paint(path: Path, level: int, side: int = 32) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((side, side, 3), level, np.uint8)).save(path)


def folder(path: Path, *settings: tuple[str, int], pattern: str = "") -> Folder:
    where = parse_folder(f"{path}/{pattern}")
    return Folder("folder:f", where, NAMES, settings or (CLEAN,), read_picture)


def levels(arm: Folder, requests: list[Request], condition: str = "clean") -> list[int | str]:
    """Grey levels of the answers, or the reasons why there is none."""
    answers = arm(requests, DegradationModel(condition, 4))
    return [
        str(a.reason) if a.image is None else round(255 * a.image.mean().item()) for a in answers
    ]


def test_numbered_pictures_are_of_draws_and_others_of_all_draws(
    tmp_path: Path, requests: Make
) -> None:
    paint(tmp_path / "clean-x4" / "val-0.png", 10)
    for k in (1, 2):
        paint(tmp_path / "clean-x4" / f"val-1_{k}.bmp", 20 + k)
    paint(tmp_path / "clean-x4" / "val-2_1.PNG", 30)
    paint(tmp_path / "clean-x4" / "val-2.png", 39)
    assert levels(folder(tmp_path), requests(3, draws=2)) == [
        10, 10, 21, 22, 30, "no output: clean-x4/val-2_2.png is missing",
    ]  # fmt: skip


def test_draws_may_be_counted_from_zero(tmp_path: Path, requests: Make) -> None:
    for k in (0, 1):
        paint(tmp_path / f"val-0_{k}.png", 10 + k)
    # The first draw of another face is missing: its second one is not taken for it.
    paint(tmp_path / "val-1_1.png", 21)
    assert levels(folder(tmp_path), requests(2, draws=2)) == [
        10, 11, "no output: val-1_0.png is missing", 21,
    ]  # fmt: skip


def test_a_pattern_finds_names_with_something_added(tmp_path: Path, requests: Make) -> None:
    for place, level in (("clean-x4", 10), ("gaussian-25-x4", 30)):
        for face in range(2):
            paint(tmp_path / place / "faces" / f"val-{face}_00.png", level + face)
            # Crops, comparisons and other faces of the photo.
            paint(tmp_path / place / "cmp" / f"val-{face}_00.png", 0)
            paint(tmp_path / place / "faces" / f"val-{face}_01.png", 0)
    arm = folder(tmp_path, CLEAN, NOISY, pattern="{setting}/faces/{name}_00.png")
    missing = "no output: clean-x4/faces/val-2_00.png or val-2_1_00.png is missing"
    assert levels(arm, requests(3)) == [10, 11, missing]
    assert levels(arm, requests(2), "gaussian:25") == [30, 31]
    # Numbers of draws come before what is added.
    paint(tmp_path / "numbered" / "out-val-0_2.jpg", 40)
    arm = folder(tmp_path / "numbered", pattern="out-{name}")
    assert levels(arm, requests(1, draws=2))[1] == 40
    # Without a pattern, _00 is no draw.
    with pytest.raises(InputError, match=r"none of the run's 1 .* val-0\.png, but val-0_00\.png;"):
        folder(tmp_path / "clean-x4" / "faces").check_outputs(["val/0.jpg"])
    with pytest.raises(InputError, match=r"has no folder clean-x4/none for condition clean"):
        folder(tmp_path, pattern="{setting}/none")


def test_patterns_are_parsed() -> None:
    setting, name = "{setting}", "{name}"
    for given, root, place, file in (
        ("out", "out", "", name),
        (".", ".", "", name),
        ("/a/out/", "/a/out", "", name),
        (f"out/{setting}", "out", setting, name),
        (f"a/b/{setting}/faces", "a/b", f"{setting}/faces", name),
        (f"a/x-{setting}/faces/{name}_00.png", "a", f"x-{setting}/faces", f"{name}_00.png"),
        (f"a/faces/{name}_00", "a/faces", "", f"{name}_00"),
        (f"{name}.png", ".", "", f"{name}.png"),
    ):
        assert parse_folder(given) == OutputPattern(Path(root), place, file)
    assert parse_arm(f"folder:out/gfpgan/{setting}/faces/{name}_00.png").name == "folder:gfpgan"
    for given in (f"a/{name}/x.png", f"a/{name}-{name}.png", f"a/{name}/{setting}_{name}.png"):
        with pytest.raises(InputError, match="once, in the name of the files"):
            parse_folder(given)


def test_every_condition_and_scale_has_its_folder(tmp_path: Path, requests: Make) -> None:
    paint(tmp_path / "clean-x4" / "val-0.png", 10)
    paint(tmp_path / "gaussian-25-x4" / "val-0.png", 20)
    arm = folder(tmp_path, CLEAN, NOISY)
    assert levels(arm, requests(1)) == [10]
    assert levels(arm, requests(1), "gaussian:25") == [20]
    with pytest.raises(InputError, match="no folder jpeg-5-x4 for condition jpeg:5 at scale 4"):
        folder(tmp_path, CLEAN, ("jpeg:5", 4))


def test_a_single_setting_may_lie_in_the_folder_itself(tmp_path: Path, requests: Make) -> None:
    paint(tmp_path / "val-0.png", 10)
    assert levels(folder(tmp_path), requests(1)) == [10]


def test_missing_and_unusable_pictures_are_errors_with_the_reason(
    tmp_path: Path, requests: Make
) -> None:
    paint(tmp_path / "val-0.png", 10, side=30)
    (tmp_path / "val-1.png").write_text("nothing")
    arm = folder(tmp_path)
    answers = arm(requests(3), DegradationModel("clean", 4))
    assert {a.status for a in answers} == {Status.ERROR}
    assert [a.reason for a in answers] == [
        "the output is 30 x 30 px, where 32 x 32 are due: 4 times the input of 8 x 8",
        "val-1.png: not an image of a known format (BMP, GIF, JPEG, PNG, PPM, TIFF, WEBP)",
        "no output: val-2.png or val-2_1.png is missing",
    ]
    arm.check_outputs(list(NAMES))


def test_a_folder_of_other_faces_is_refused(tmp_path: Path) -> None:
    paint(tmp_path / "other.png", 10)
    with pytest.raises(InputError, match=r"none of the run's 3 faces, such as val-0\.png"):
        folder(tmp_path).check_outputs(list(NAMES))


def test_two_pictures_of_one_name_are_refused(tmp_path: Path) -> None:
    paint(tmp_path / "val-0.png", 10)
    paint(tmp_path / "val-0.bmp", 10)
    with pytest.raises(InputError, match=r"'val-0\.bmp' and 'val-0\.png' .* keep one of them"):
        folder(tmp_path)


def test_a_link_that_leads_out_is_not_read(tmp_path: Path, requests: Make) -> None:
    paint(tmp_path / "secret.png", 10)
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "val-0.png").symlink_to(tmp_path / "secret.png")
    (found,) = levels(folder(inside), requests(1))
    assert "leads out of" in str(found)
    assert folder_sha256(inside) == folder_sha256(tmp_path / "inside" / ".")


def test_the_digest_is_of_names_and_contents(tmp_path: Path) -> None:
    paint(tmp_path / "a" / "val-0.png", 10)
    paint(tmp_path / "b" / "val-0.png", 10)
    (tmp_path / "b" / "notes.txt").touch()
    before = folder_sha256(tmp_path / "a")
    assert before == folder_sha256(tmp_path / "b")
    paint(tmp_path / "b" / "val-0.png", 11)
    paint(tmp_path / "a" / "val-1.png", 10)
    assert len({before, folder_sha256(tmp_path / "a"), folder_sha256(tmp_path / "b")}) == 3


def test_names_are_plain_and_distinct() -> None:
    given = ["val/1.jpg", "a b.png", "a.jpg", "A.png", "x.jpg", "x_1.jpg", "../é.png", "y" * 300]
    names = picture_names(given)
    assert names["val/1.jpg"] == "val-1" and names["a b.png"] == "a-b" and names["x.jpg"] == "x"
    # Draw 1 of face x.jpg is x_1, so that face x_1.jpg is called otherwise.
    assert names["x_1.jpg"].startswith("x_1-")
    assert names["a.jpg"] != names["A.png"]
    assert len({name.lower() for name in names.values()}) == len(given)
    assert all(name.isascii() and "/" not in name and name[0] != "." for name in names.values())
    assert max(map(len, names.values())) < 140
    assert setting_folder("gaussian:2.5", 8) == "gaussian-2.5-x8"
