import json
from collections.abc import Callable
from pathlib import Path

import pytest

from pulse_audit.datasets.registry import DatasetCard, Registry
from pulse_audit.datasets.validate import ValidationReport, validate
from pulse_audit.types import InputError

Write = Callable[..., Path]
ROWS = (
    "val/1.jpg,20-29,Male,White,True",
    "val/2.jpg,3-9,Female,Indian,False",
    "val/3.jpg,10-19,Male,Black,False",
)


@pytest.fixture
def card(registry: Registry) -> DatasetCard:
    """FairFace, three photos strong."""
    data = registry.get("fairface").model_dump()
    expected = {"val": {"count": 3, "groups": {"race": {"White": 1, "Indian": 1, "Black": 1}}}}
    return DatasetCard(**{**data, "expected": expected, "files": ()})


def kinds(report: ValidationReport) -> list[str]:
    return [defect.kind for defect in report.defects]


def test_a_sound_copy(card: DatasetCard, fairface: Write) -> None:
    report = validate(card, fairface(*ROWS), "val")
    assert report.ok and report.n_faces == 3
    assert report.counts["gender"] == {"Male": 2, "Female": 1}
    assert (report.defects, report.warnings, report.notes, report.repaired) == ([], [], [], [])


def test_the_report_is_plain_json(card: DatasetCard, fairface: Write) -> None:
    root = fairface(*ROWS[:2])
    found = json.loads(json.dumps(validate(card, root, "val").as_dict()))
    assert found["ok"] is False and found["dataset"] == "fairface" and found["split"] == "val"
    assert set(found["defects"][0]) == {"kind", "where", "what_to_do"}


def test_a_lacking_row_is_a_count_and_an_unlisted_photo(
    card: DatasetCard, fairface: Write, photo: Write
) -> None:
    root = fairface(*ROWS[:2])
    photo(root / "val/3.jpg", 99)
    report = validate(card, root, "val")
    assert kinds(report) == ["count", "unlisted"]
    assert "2 where a complete copy has 3" in report.defects[0].what_to_do
    assert "val/3.jpg" in report.defects[1].what_to_do


def test_a_deliberate_subset_is_no_defect(card: DatasetCard, fairface: Write, photo: Write) -> None:
    root = fairface(*ROWS[:2])
    photo(root / "val/3.jpg", 99)
    report = validate(card, root, "val", subset=True)
    assert report.ok and len(report.notes) == 2


def test_a_group_that_differs_is_named(card: DatasetCard, fairface: Write) -> None:
    root = fairface(ROWS[0], ROWS[1], ROWS[2].replace("Black", "White"))
    report = validate(card, root, "val")
    assert [defect.where for defect in report.defects] == ["race White", "race Black"]


def test_a_copy_cut_at_5000_rows_is_recognised(
    registry: Registry, tmp_path: Path, photo: Write
) -> None:
    root = tmp_path / "root"
    (root / "val").mkdir(parents=True)
    rows = [f"val/{i}.jpg,20-29,Male,White,True" for i in range(5000)]
    text = "\n".join(["file,age,gender,race,service_test", *rows])
    (root / "fairface_label_val.csv").write_text(text)
    report = validate(registry.get("fairface"), root, "val")
    assert kinds(report) == ["count"] + ["missing_file"] * 5000
    assert "cut off at 5,000 rows" in report.defects[0].what_to_do


def test_an_unconfirmed_count_is_a_warning(
    registry: Registry, tmp_path: Path, photo: Write
) -> None:
    photo(tmp_path / "UTKFace/26_1_2_20170116184024662.jpg")
    photo(tmp_path / "UTKFace/26_1_20170116184024662.jpg", 1)
    report = validate(registry.get("utkface"), tmp_path, "val")
    assert report.ok
    assert any("23,705" in line for line in report.warnings)
    assert any("26_1_20170116184024662.jpg" in line for line in report.warnings)
    assert any("no splits" in line for line in report.notes)


def test_a_data_set_of_unknown_size_says_so(
    registry: Registry, tmp_path: Path, photo: Write
) -> None:
    photo(tmp_path / "1.jpg")
    (tmp_path / "labels.csv").write_text("file,x\n1.jpg,y\n")
    report = validate(registry.get("folder"), tmp_path, "val")
    assert report.ok and any("not known" in line for line in report.notes)


def test_every_photo_is_decoded(card: DatasetCard, fairface: Write) -> None:
    root = fairface(*ROWS)
    (root / "val/1.jpg").write_bytes((root / "val/1.jpg").read_bytes()[:300])
    (root / "val/2.jpg").write_bytes(b"")
    (root / "val/3.jpg").unlink()
    report = validate(card, root, "val")
    assert [(d.kind, d.where) for d in report.defects] == [
        ("unreadable", "val/1.jpg"), ("unreadable", "val/2.jpg"), ("missing_file", "val/3.jpg"),
    ]  # fmt: skip


def test_the_same_photo_twice(card: DatasetCard, fairface: Write) -> None:
    root = fairface(*ROWS)
    (root / "val/3.jpg").write_bytes((root / "val/1.jpg").read_bytes())
    (defect,) = validate(card, root, "val").defects
    assert defect.kind == "duplicate_photo" and defect.where == "val/3.jpg"
    assert "val/1.jpg, with other labels" in defect.what_to_do


def test_duplicates_are_counted_and_by_column_those_that_contradict_each_other(
    card: DatasetCard, fairface: Write
) -> None:
    rows = [
        f"val/{i}.jpg,20-29,{sex},White,True" for i, sex in enumerate(["Male"] * 4 + ["Female"])
    ]
    root = fairface(*rows)
    for copy, of in ((2, 1), (3, 1), (4, 0)):
        (root / f"val/{copy}.jpg").write_bytes((root / f"val/{of}.jpg").read_bytes())
    report = validate(card, root, "val")
    assert (report.duplicates, report.contradictory) == (3, {"gender": 1})
    assert any("3 faces have the photo" in note and "gender 1" in note for note in report.notes)


def test_every_bad_row_is_listed(card: DatasetCard, fairface: Write) -> None:
    root = fairface(
        *ROWS,
        "val/4.jpg,20-29,Male,Wite,True",
        "val/1.jpg,20-29,Male,White,True",
        "../5.jpg,20-29,Male,White,True",
        "val/6.jpg,03-Sep,Male,,True",
    )
    report = validate(card, root, "val")
    assert kinds(report)[:5] == [
        "unknown_label", "duplicate_row", "outside_root", "missing_label", "damaged_label",
    ]  # fmt: skip
    assert report.n_faces == 3


def test_progress_is_told(card: DatasetCard, fairface: Write) -> None:
    told: list[tuple[int, int, int]] = []
    validate(card, fairface(*ROWS), "val", progress=lambda *at: told.append(at))
    assert told == [(1, 3, 0), (2, 3, 0), (3, 3, 0)]


DAMAGED = (ROWS[0], ROWS[1].replace("3-9", "03-Sep"), ROWS[2].replace("10-19", "Oct-19"))


def test_damage_is_reported_and_left_alone(card: DatasetCard, fairface: Write) -> None:
    root = fairface(*DAMAGED)
    before = (root / "fairface_label_val.csv").read_bytes()
    report = validate(card, root, "val")
    assert kinds(report).count("damaged_label") == 2
    assert (root / "fairface_label_val.csv").read_bytes() == before


def test_repair_restores_the_labels_and_keeps_the_original(
    card: DatasetCard, fairface: Write
) -> None:
    root = fairface(*DAMAGED)
    path = root / "fairface_label_val.csv"
    before = path.read_bytes()
    others = {p: p.read_bytes() for p in (root / "val").iterdir()}
    report = validate(card, root, "val", repair=True)
    assert report.ok and "2 labels" in report.repaired[0]
    assert path.read_text() == "\n".join(["file,age,gender,race,service_test", *ROWS]) + "\n"
    assert (root / "fairface_label_val.csv.bak").read_bytes() == before
    assert {p: p.read_bytes() for p in (root / "val").iterdir()} == others


def test_a_file_that_a_spreadsheet_damaged_in_two_ways_can_be_repaired(
    card: DatasetCard, fairface: Write
) -> None:
    rows = [row.replace("True", "TRUE").replace("False", "FALSE") for row in DAMAGED]
    root = fairface(*rows)
    report = validate(card, root, "val", repair=True)
    assert report.ok and "2 labels" in report.repaired[0]
    assert sum(report.counts["service_test"].values()) == report.n_faces == len(rows)
    # Only the ages are rewritten: the spellings are one word.
    assert ",TRUE" in (root / "fairface_label_val.csv").read_text()


def test_repair_of_a_sound_copy_writes_nothing(card: DatasetCard, fairface: Write) -> None:
    root = fairface(*ROWS)
    report = validate(card, root, "val", repair=True)
    assert report.ok and report.repaired == []
    assert not list(root.glob("*.bak"))


def test_repair_leaves_other_defects(card: DatasetCard, fairface: Write) -> None:
    root = fairface(ROWS[0], DAMAGED[1], ROWS[2].replace("Black", "Blak"))
    report = validate(card, root, "val", repair=True)
    assert "unknown_label" in kinds(report) and "damaged_label" not in kinds(report)


@pytest.mark.parametrize(("confirmed", "kind"), [(True, "defect"), (False, "warning")])
def test_checksums(card: DatasetCard, fairface: Write, confirmed: bool, kind: str) -> None:
    sums = [{"name": "fairface_label_val.csv", "md5": "0" * 32, "confirmed": confirmed,
             "source": "a book"}]  # fmt: skip
    root = fairface(*ROWS)
    changed = DatasetCard(**{**card.model_dump(), "files": sums})
    report = validate(changed, root, "val")
    assert kinds(report) == (["checksum"] if kind == "defect" else [])
    assert bool(report.warnings) == (kind == "warning")
    assert validate(changed, root, "val", subset=True).ok


def test_a_right_checksum_passes(card: DatasetCard, fairface: Write) -> None:
    import hashlib

    root = fairface(*ROWS)
    digest = hashlib.sha256((root / "fairface_label_val.csv").read_bytes()).hexdigest()
    for part in (digest, digest[:16]):
        sums = [{"name": "fairface_label_val.csv", "sha256": part, "confirmed": True,
                 "source": "here"}]  # fmt: skip
        assert validate(DatasetCard(**{**card.model_dump(), "files": sums}), root, "val").ok


def test_photos_of_another_split_are_not_unlisted(
    registry: Registry, tmp_path: Path, photo: Write
) -> None:
    for number in (1, 2):
        photo(tmp_path / f"img_align_celeba/{number:06d}.jpg", number)
    names = registry.get("celeba").vocabulary
    rows = [f"{n:06d}.jpg " + " ".join(["-1"] * 40) for n in (1, 2)]
    (tmp_path / "list_attr_celeba.txt").write_text("\n".join(["2", " ".join(names), *rows]))
    (tmp_path / "list_eval_partition.txt").write_text("000001.jpg 0\n000002.jpg 1\n")
    report = validate(registry.get("celeba"), tmp_path, "val", subset=True)
    assert report.ok and not any("does not list" in note for note in report.notes)


def test_nothing_to_check_is_bad_input(card: DatasetCard, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="fairface_label_val.csv"):
        validate(card, tmp_path, "val")


def test_the_bundled_faces_are_sound(registry: Registry) -> None:
    report = validate(registry.get("skimage-faces"), None, "val")
    assert report.ok and report.n_faces == 101


def test_the_real_sample_is_sound_but_small(registry: Registry, shared: Path) -> None:
    root = shared / "fairface-sample"
    assert validate(registry.get("fairface"), root, "val", subset=True).ok
    report = validate(registry.get("fairface"), root, "val")
    assert kinds(report) == ["count"]
