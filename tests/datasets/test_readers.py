"""What every layout shares, shown on FairFace: splits, labels, paths, one line for bad input."""

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pulse_audit.datasets.balance import balanced_draw
from pulse_audit.datasets.images import FileImage, UnreadableImage, load
from pulse_audit.datasets.readers import FaceIndex, read_faces
from pulse_audit.datasets.readers import index as index_of
from pulse_audit.datasets.registry import Registry
from pulse_audit.datasets.scan import Scan
from pulse_audit.types import Face, InputError

Write = Callable[..., Path]
GOOD = "val/1.jpg,20-29,Male,White,True"


def read(registry: Registry, root: Path | None, split: str = "val") -> FaceIndex:
    return read_faces(registry.get("fairface"), root, split)


def refusal(registry: Registry, root: Path | None, split: str = "val") -> str:
    with pytest.raises(InputError) as caught:
        read(registry, root, split)
    line = str(caught.value)
    assert "\n" not in line and "fairface" in line
    return line


def test_a_face_has_the_data_sets_own_name_and_words(registry: Registry, fairface: Write) -> None:
    index = read(registry, fairface(GOOD))
    (face,) = index.faces
    assert face.id == "val/1.jpg"
    assert face.labels == {
        "race": "White",
        "gender": "Male",
        "age": "20-29",
        "service_test": "True",
        "race6": "White",
        "race_coarse": "White or Latino or Middle Eastern",
        "race4": "Caucasian",
    }
    assert load(face.source).shape == (8, 8, 3)
    assert index.split == "val" and index.problems == () and index.notes == ()


def test_label_files_are_hashed(registry: Registry, fairface: Write) -> None:
    root = fairface(GOOD)
    import hashlib

    digest = hashlib.sha256((root / "fairface_label_val.csv").read_bytes()).hexdigest()
    assert dict(read(registry, root).source_files) == {"fairface_label_val.csv": digest}


def test_the_vocabulary_names_words_without_faces(registry: Registry, fairface: Write) -> None:
    index = read(registry, fairface(GOOD))
    assert len(index.vocabulary["race"]) == 7
    assert index.counts()["race"] == {
        "White": 1, "Black": 0, "Latino_Hispanic": 0, "East Asian": 0, "Southeast Asian": 0,
        "Indian": 0, "Middle Eastern": 0,
    }  # fmt: skip


def test_service_test_may_be_lacking(registry: Registry, fairface: Write) -> None:
    root = fairface("val/1.jpg,20-29,Male,White", header="file,age,gender,race")
    index = read(registry, root)
    assert set(index.vocabulary) == {"race", "gender", "age", "race6", "race_coarse", "race4"}


def test_columns_in_another_order_and_further_ones(registry: Registry, fairface: Write) -> None:
    root = fairface("val/1.jpg,x,White,Male,3-9", header="file,extra,race,gender,age")
    labels = read(registry, root).faces[0].labels
    assert [labels[c] for c in ("race", "gender", "age")] == ["White", "Male", "3-9"]


def test_derived_groupings_are_label_columns(registry: Registry, fairface: Write) -> None:
    races = ["East Asian", "Indian", "Southeast Asian", "Middle Eastern"]
    rows = [f"val/{i}.jpg,20-29,Male,{race},True" for i, race in enumerate(races)]
    index = read(registry, fairface(*rows))
    assert [face.labels["race6"] for face in index.faces] == [
        "Asian", "Indian", "Asian", "Middle Eastern",
    ]  # fmt: skip
    assert index.vocabulary["race6"] == (
        "White", "Black", "Latino_Hispanic", "Asian", "Indian", "Middle Eastern",
    )  # fmt: skip
    assert index.vocabulary["race_coarse"] == (
        "White or Latino or Middle Eastern", "Black", "Asian", "Indian",
    )  # fmt: skip
    assert index.counts()["race_coarse"]["Asian"] == 2
    source, group_of = index.derived["race6"]
    assert (source, group_of["Southeast Asian"], group_of["Black"]) == ("race", "Asian", "Black")


def test_faces_of_no_group_have_no_label_in_a_derived_grouping(
    registry: Registry, fairface: Write
) -> None:
    races = ["East Asian", "Black", "Latino_Hispanic", "Middle Eastern", "Middle Eastern"]
    rows = [f"val/{i}.jpg,20-29,Male,{race},True" for i, race in enumerate(races)]
    index = read(registry, fairface(*rows))
    assert [face.labels.get("race4") for face in index.faces] == [
        "Asian", "African", None, None, None,
    ]  # fmt: skip
    assert index.counts()["race4"] == {"Caucasian": 0, "African": 1, "Asian": 1, "Indian": 0}
    # The groups are those of the data set that they are compared with.
    assert set(index.vocabulary["race4"]) == set(registry.get("rfw").vocabulary["race"])


def test_an_index_without_some_derived_groupings(registry: Registry, fairface: Write) -> None:
    index = read(registry, fairface(GOOD))
    assert index.within(index.vocabulary) is index
    fewer = index.within([name for name in index.vocabulary if name != "race4"])
    assert set(index.vocabulary) - set(fewer.vocabulary) == {"race4"}
    assert "race4" not in fewer.derived and "race4" not in fewer.faces[0].labels
    assert fewer.faces[0].labels["race6"] == "White"


def test_faces_can_be_balanced_over_a_derived_grouping(registry: Registry, fairface: Write) -> None:
    races = ["East Asian", "Southeast Asian", "White", "Black", "Indian"] * 2
    rows = [f"val/{i}.jpg,20-29,Male,{race},True" for i, race in enumerate(races)]
    index = read(registry, fairface(*rows))
    draw = balanced_draw(index.faces, ["race_coarse"], 2, 0, index.vocabulary)
    groups = Counter(face.labels["race_coarse"] for face in draw.chosen)
    assert groups == dict.fromkeys(index.vocabulary["race_coarse"], 2)


def test_without_the_column_there_is_no_derived_one(registry: Registry) -> None:
    card = registry.get("folder").model_copy(update={"derived": registry.get("celeba").derived})
    found = Scan(faces=[Face("a.png", None, {"hat": "red"})])
    assert index_of(card, None, "all", found).vocabulary == {"hat": ("red",)}


def test_all_holds_both_splits(registry: Registry, fairface: Write) -> None:
    fairface("train/1.jpg,20-29,Male,White,True", split="train")
    index = read(registry, fairface(GOOD), "all")
    assert [face.id for face in index.faces] == ["train/1.jpg", "val/1.jpg"]
    assert [name for name, _ in index.source_files] == [
        "fairface_label_train.csv", "fairface_label_val.csv",
    ]  # fmt: skip


@pytest.mark.parametrize("inner", ["fairface-img-margin025-trainval", "anything"])
def test_an_archive_in_its_own_folder(registry: Registry, fairface: Write, inner: str) -> None:
    index = read(registry, fairface(GOOD, inner=inner))
    assert index.faces[0].id == "val/1.jpg"
    assert load(index.faces[0].source).shape == (8, 8, 3)


def test_images_in_the_archives_folder_and_labels_in_the_root(
    registry: Registry, fairface: Write
) -> None:
    root = fairface(GOOD)
    (root / "fairface-img-margin025-trainval").mkdir()
    (root / "val").rename(root / "fairface-img-margin025-trainval/val")
    assert load(read(registry, root).faces[0].source).shape == (8, 8, 3)


def test_one_margin_never_stands_in_for_the_other(registry: Registry, fairface: Write) -> None:
    root = fairface(GOOD, inner="fairface-img-margin125-trainval")
    assert "fairface_label_val.csv" in refusal(registry, root)
    wide = read_faces(registry.get("fairface-1.25"), root, "val")
    assert wide.faces[0].id == "val/1.jpg"


def test_no_root_says_how_to_get_the_data(registry: Registry) -> None:
    line = refusal(registry, None)
    assert "--data-root" in line and "https://github.com/joojs/fairface" in line


def test_a_missing_root_is_named(registry: Registry, tmp_path: Path) -> None:
    line = refusal(registry, tmp_path / "nowhere")
    assert "nowhere" in line and "https://" in line


def test_no_label_file(registry: Registry, tmp_path: Path) -> None:
    assert "fairface_label_val.csv" in refusal(registry, tmp_path)


def test_no_image_folder(registry: Registry, fairface: Write) -> None:
    root = fairface(GOOD)
    (root / "val").rename(root / "elsewhere")
    assert "val/" in refusal(registry, root)


def test_a_lacking_column_is_named_with_those_there(registry: Registry, fairface: Write) -> None:
    root = fairface("val/1.jpg,3-9,Male,White", header="file,age,gender,ethnicity")
    line = refusal(registry, root)
    assert "'race'" in line and "ethnicity" in line


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("val/2.jpg,20-29,Male,Indain,True", ["Indain", "Indian", "row 3"]),
        ("val/2.jpg,20-29,male,White,True", ["'male'", "Male"]),
        ("val/2.jpg,20-29,Male,White ,True", ["'White '"]),
        ("val/2.jpg,20-29,Male,<script>,True", ["<script>", "known"]),
        ("val/2.jpg,20-29,Male,,True", ["race", "empty"]),
        ("val/2.jpg,03-Sep,Male,White,True", ["03-Sep", "3-9", "--repair"]),
        ("val/2.jpg,Oct-19,Male,White,True", ["Oct-19", "10-19", "--repair"]),
        ("val/2.jpg,2019-10-01,Male,White,True", ["2019-10-01", "10-19", "--repair"]),
        ("val/1.jpg,20-29,Male,White,True", ["val/1.jpg", "again", "row 2"]),
        ("val/./1.jpg,20-29,Male,White,True", ["val/./1.jpg", "again", "row 2"]),
        ("val//1.jpg,20-29,Male,White,True", ["again"]),
        ("../1.jpg,20-29,Male,White,True", ["../1.jpg", "leaves"]),
        ("val/../../1.jpg,20-29,Male,White,True", ["leaves"]),
        ("/etc/passwd,20-29,Male,White,True", ["/etc/passwd", "leaves"]),
        ("C:/1.jpg,20-29,Male,White,True", ["leaves"]),
        ("val\\2.jpg,20-29,Male,White,True", ["forward slashes"]),
        (",20-29,Male,White,True", ["empty"]),
        ("val/2.jpg,20-29,Male,White", ["row 3", "cells"]),
    ],
)
def test_a_bad_row_costs_one_line(
    registry: Registry, fairface: Write, row: str, expected: list[str]
) -> None:
    line = refusal(registry, fairface(GOOD, row))
    assert all(word in line for word in expected), line


def test_further_bad_rows_are_counted(registry: Registry, fairface: Write) -> None:
    bad = [f"val/{i}.jpg,20-29,Male,Wite,True" for i in range(2, 6)]
    assert "3 more" in refusal(registry, fairface(GOOD, *bad))


def test_a_long_label_is_cut_in_the_message(registry: Registry, fairface: Write) -> None:
    root = fairface(GOOD, f"val/2.jpg,20-29,Male,{'x' * 100_000},True")
    assert len(refusal(registry, root)) < 500


def test_reading_changes_nothing(registry: Registry, fairface: Write) -> None:
    root = fairface("val/1.jpg,03-Sep,Male,White,True")
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    refusal(registry, root)
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before


def test_photos_are_not_looked_at(registry: Registry, fairface: Write) -> None:
    root = fairface(GOOD)
    (root / "val/1.jpg").unlink()
    face = read(registry, root).faces[0]
    with pytest.raises(UnreadableImage, match="missing"):
        load(face.source)


def test_a_link_to_a_folder_outside_is_refused(
    registry: Registry, fairface: Write, tmp_path: Path
) -> None:
    root = fairface(GOOD)
    (root / "val").rename(tmp_path / "outside")
    (root / "val").symlink_to(tmp_path / "outside")
    line = refusal(registry, root)
    for part in ("'val' is a link to", str(tmp_path / "outside"), "--data-root"):
        assert part in line
    assert "more" not in line  # said once, not row by row


def test_a_link_to_a_file_outside_is_not_read(
    registry: Registry, fairface: Write, tmp_path: Path
) -> None:
    root = fairface(GOOD)
    (root / "val/1.jpg").rename(tmp_path / "outside.jpg")
    (root / "val/1.jpg").symlink_to(tmp_path / "outside.jpg")
    with pytest.raises(UnreadableImage, match="out of the data folder"):
        load(read(registry, root).faces[0].source)


def test_the_root_itself_may_be_a_link(registry: Registry, fairface: Write, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(fairface(GOOD))
    face = read(registry, tmp_path / "link").faces[0]
    assert load(face.source).shape == (8, 8, 3)


def test_a_pipe_in_place_of_a_photo_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "1.jpg")
    with pytest.raises(OSError):
        FileImage(str(tmp_path), "1.jpg").read()


def test_a_huge_file_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pulse_audit.datasets.images.MAX_BYTES", 10)
    (tmp_path / "1.jpg").write_bytes(b"x" * 11)
    with pytest.raises(OSError, match="larger"):
        FileImage(str(tmp_path), "1.jpg").read()


def test_an_unknown_split_is_answered_with_the_known(registry: Registry, fairface: Write) -> None:
    assert "val" in refusal(registry, fairface(GOOD), "test")


def test_a_data_set_without_splits_says_so(registry: Registry) -> None:
    index = read_faces(registry.get("skimage-faces"), None, "val")
    assert index.split == "all" and "no splits" in index.notes[0]
    assert read_faces(registry.get("skimage-faces"), None, "all").notes == ()
    with pytest.raises(InputError, match="no splits.*--split all"):
        read_faces(registry.get("skimage-faces"), None, "train")


def test_the_bundled_faces_decode(registry: Registry) -> None:
    faces = read_faces(registry.get("skimage-faces"), None).faces
    assert len(faces) == 101 and faces[-1].id == "astronaut.png"
    skimage_data = pytest.importorskip("skimage.data")
    grey = load(faces[7].source)
    assert grey.shape == (25, 25, 3)
    np.testing.assert_allclose(grey[..., 1], skimage_data.lfw_subset()[7], atol=0.5 / 255 + 1e-6)
    colour = load(faces[-1].source)
    np.testing.assert_allclose(colour[0, 0] * 255, skimage_data.astronaut()[30, 142], atol=1e-4)
    assert colour.shape == (170, 170, 3)


def test_the_real_sample_is_balanced(registry: Registry, shared: Path) -> None:
    index = read(registry, shared / "fairface-sample")
    assert len(index.faces) == 210
    assert set(index.counts()["race"].values()) == {30}
    assert len(read(registry, shared / "fairface-sample", "train").faces) == 420
    assert load(index.faces[0].source).shape == (224, 224, 3)


def test_image_files_of_other_kinds_are_no_problem(registry: Registry, fairface: Write) -> None:
    root = fairface("val/1.png,20-29,Male,White,True")
    Image.new("L", (4, 4), 255).save(root / "val/1.png")
    assert load(read(registry, root).faces[0].source).min() == 1
