"""A tiny data set in each layout."""

import csv
import io
import json
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pulse_audit.datasets.images import UnreadableImage, load
from pulse_audit.datasets.readers import read_faces
from pulse_audit.datasets.registry import Registry, load_registry
from pulse_audit.datasets.scan import age_group
from pulse_audit.types import InputError

Write = Callable[..., Path]


# -- FairFace as Parquet ---------------------------------------------------------------------


def encoded(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (4, 4), value).save(buffer, format="PNG")
    return buffer.getvalue()


def parquet(
    root: Path,
    races: Sequence[int | None],
    names: Sequence[str | None],
    file: str = "0.25/validation-00000-of-00001.parquet",
    first: int = 0,
) -> Path:
    images = [{"bytes": encoded(first + i), "path": name} for i, name in enumerate(names)]
    table = pa.table(
        {
            "image": pa.array(images, pa.struct({"bytes": pa.binary(), "path": pa.string()})),
            "age": [8] * len(races),
            "gender": [1] * len(races),
            "race": pa.array(races, pa.int64()),
            "service_test": [True] * len(races),
        }
    )
    (root / file).parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, root / file, row_group_size=2)
    return root


def test_class_ids_become_words(registry: Registry, tmp_path: Path) -> None:
    parquet(tmp_path, range(7), [f"{i}.jpg" for i in range(7)])
    faces = read_faces(registry.get("fairface-hf"), tmp_path).faces
    assert [face.labels["race"] for face in faces] == [
        "East Asian", "Indian", "Black", "White", "Middle Eastern", "Latino_Hispanic",
        "Southeast Asian",
    ]  # fmt: skip
    assert faces[0].labels["age"] == "more than 70"
    assert faces[0].labels["gender"] == "Female"
    assert faces[0].labels["service_test"] == "True"
    assert [face.id for face in faces][:2] == ["validation/0.jpg", "validation/1.jpg"]


def test_a_row_is_read_from_its_row_group(registry: Registry, tmp_path: Path) -> None:
    parquet(tmp_path, [0] * 5, [f"{i}.jpg" for i in range(5)])
    faces = read_faces(registry.get("fairface-hf"), tmp_path).faces
    values = [load(face.source)[0, 0, 0] * 255 for face in reversed(faces)]
    np.testing.assert_allclose(values, [4, 3, 2, 1, 0], atol=1e-4)


@pytest.mark.parametrize("names", [[None, None], ["a.jpg", "a.jpg"], ["../a.jpg", "b.jpg"]])
def test_rows_without_distinct_plain_names_are_numbered(
    registry: Registry, tmp_path: Path, names: list[str | None]
) -> None:
    parquet(tmp_path, [0, 1], names)
    parquet(tmp_path, [2], [None], "0.25/validation-00001-of-00002.parquet", first=9)
    faces = read_faces(registry.get("fairface-hf"), tmp_path).faces
    assert [f.id for f in faces] == [f"validation/{i:06d}" for i in range(3)]
    assert load(faces[2].source)[0, 0, 0] == pytest.approx(9 / 255)


def test_the_folder_of_the_margin_may_be_the_root(registry: Registry, tmp_path: Path) -> None:
    parquet(tmp_path, [0], ["a.jpg"])
    assert len(read_faces(registry.get("fairface-hf"), tmp_path / "0.25").faces) == 1


@pytest.mark.parametrize("race", [7, -1, None])
def test_an_id_without_a_word_is_refused(
    registry: Registry, tmp_path: Path, race: int | None
) -> None:
    parquet(tmp_path, [0, race], ["a.jpg", "b.jpg"])
    with pytest.raises(InputError, match="row 1: .*race"):
        read_faces(registry.get("fairface-hf"), tmp_path)


def test_a_file_that_is_no_parquet_is_named(registry: Registry, tmp_path: Path) -> None:
    (tmp_path / "validation-0.parquet").write_bytes(b"PAR1 nothing")
    with pytest.raises(InputError, match=r"^[^\n]*validation-0.parquet[^\n]*$"):
        read_faces(registry.get("fairface-hf"), tmp_path)


def test_a_parquet_of_other_columns_is_refused(registry: Registry, tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": ["x"], "race": [0]}), tmp_path / "validation-0.parquet")
    with pytest.raises(InputError, match="gender"):
        read_faces(registry.get("fairface-hf"), tmp_path)


def test_images_must_be_bytes_with_a_path(registry: Registry, tmp_path: Path) -> None:
    columns = {"image": ["x"], "race": [0], "gender": [0], "age": [0]}
    pq.write_table(pa.table(columns), tmp_path / "validation-0.parquet")
    with pytest.raises(InputError, match="image"):
        read_faces(registry.get("fairface-hf"), tmp_path)


def test_a_row_without_bytes_is_unreadable(registry: Registry, tmp_path: Path) -> None:
    image = pa.array([{"bytes": None, "path": "a.jpg"}],
                     pa.struct({"bytes": pa.binary(), "path": pa.string()}))  # fmt: skip
    table = pa.table({"image": image, "race": [0], "gender": [0], "age": [0]})
    pq.write_table(table, tmp_path / "validation-0.parquet")
    (face,) = read_faces(registry.get("fairface-hf"), tmp_path).faces
    with pytest.raises(UnreadableImage, match="no image bytes"):
        load(face.source)


def test_no_parquet_files(registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="validation-"):
        read_faces(registry.get("fairface-hf"), tmp_path)


# -- UTKFace ---------------------------------------------------------------------------------


def test_utkface_labels_are_the_file_name(registry: Registry, tmp_path: Path, photo: Write) -> None:
    photo(tmp_path / "UTKFace/26_1_2_20170116184024662.jpg.chip.jpg")
    photo(tmp_path / "UTKFace/9_0_4_20170116184024663.jpg.chip.jpg")
    index = read_faces(registry.get("utkface"), tmp_path)
    assert [dict(face.labels) for face in index.faces] == [
        {"race": "Asian", "gender": "Female", "age_group": "20-29", "age": "26", "race4": "Asian"},
        {"race": "Others", "gender": "Male", "age_group": "3-9", "age": "9"},
    ]
    assert index.faces[0].id == "26_1_2_20170116184024662.jpg.chip.jpg"
    assert index.vocabulary["age"] == ("9", "26")
    assert len(index.vocabulary["age_group"]) == 9


@pytest.mark.parametrize(
    "name",
    [
        "39_1_20170116174525125.jpg.chip.jpg",
        "117_0_0_2017.jpg",
        "26_2_0_2017.jpg",
        "26_0_5_2017.jpg",
        "portrait.jpg",
    ],
)
def test_malformed_utkface_names_are_skipped_and_listed(
    registry: Registry, tmp_path: Path, photo: Write, name: str
) -> None:
    photo(tmp_path / "26_1_2_20170116184024662.jpg")
    photo(tmp_path / name)
    index = read_faces(registry.get("utkface"), tmp_path)
    assert len(index.faces) == 1
    (problem,) = index.problems
    assert problem.where == name and problem.kind == "malformed_name"


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("117_0_0_2017.jpg", "age 117 is not 0 to 116"),
        ("26_2_0_2017.jpg", "gender 2 is not 0 to 1"),
        ("26_0_5_2017.jpg", "race 5 is not 0 to 4"),
        ("\uff12\uff16_0_0_2017.jpg", "the name is not"),
    ],
)
def test_utkface_labels_out_of_range_name_the_field(
    registry: Registry, tmp_path: Path, photo: Write, name: str, field: str
) -> None:
    photo(tmp_path / "26_1_2_20170116184024662.jpg")
    photo(tmp_path / name)
    (problem,) = read_faces(registry.get("utkface"), tmp_path).problems
    assert field in problem.message


def test_an_empty_folder_is_no_utkface(registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"\[age\]_\[gender\]"):
        read_faces(registry.get("utkface"), tmp_path)


@pytest.mark.parametrize(
    ("years", "group"),
    [(0, "0-2"), (2, "0-2"), (3, "3-9"), (9.9, "3-9"), (10, "10-19"), (69, "60-69"),
     (70, "more than 70"), (116, "more than 70")],
)  # fmt: skip
def test_age_groups_are_those_of_fairface(years: float, group: str) -> None:
    assert age_group(years) == group


# -- CelebA and CelebA-HQ ---------------------------------------------------------------------


def attributes(registry: Registry, rows: dict[str, int], count: int | None = None) -> str:
    names = list(registry.get("celeba").vocabulary)
    lines = [str(len(rows) if count is None else count), " ".join(names) + " "]
    for file, male in rows.items():
        words = [str(male)] + ["-1"] * (len(names) - 1)
        lines.append(file + " " + " ".join(f"{word:>2}" for word in words))
    return "\n".join(lines) + "\n"


def celeba(registry: Registry, root: Path, photo: Write, inner: str = "celeba") -> Path:
    base = root / inner
    rows = {"000001.jpg": 1, "000002.jpg": -1, "000003.jpg": 1}
    for number, name in enumerate(rows):
        photo(base / "img_align_celeba" / name, number)
    (base / "list_attr_celeba.txt").write_text(attributes(registry, rows))
    partition = "000001.jpg 0\n000002.jpg 1\n000003.jpg 2\n"
    (base / "list_eval_partition.txt").write_text(partition)
    return root


@pytest.mark.parametrize("inner", ["celeba", "."])
@pytest.mark.parametrize(
    ("split", "ids"),
    [
        ("train", ["000001.jpg"]),
        ("val", ["000002.jpg"]),
        ("test", ["000003.jpg"]),
        ("all", ["000001.jpg", "000002.jpg", "000003.jpg"]),
    ],
)
def test_celeba_partitions(
    registry: Registry, tmp_path: Path, photo: Write, inner: str, split: str, ids: list[str]
) -> None:
    index = read_faces(registry.get("celeba"), celeba(registry, tmp_path, photo, inner), split)
    assert [face.id for face in index.faces] == ids
    assert load(index.faces[0].source).shape == (8, 8, 3)
    assert len(index.source_files) == 2


def test_celeba_attributes_are_words(registry: Registry, tmp_path: Path, photo: Write) -> None:
    index = read_faces(registry.get("celeba"), celeba(registry, tmp_path, photo), "all")
    assert [face.labels["Male"] for face in index.faces] == ["1", "-1", "1"]
    assert [face.labels["gender"] for face in index.faces] == ["Male", "Female", "Male"]
    assert len(index.faces[0].labels) == 40 + len(index.derived) == 41


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("000002.jpg -1", "000002.jpg 0", "unknown Male '0'"),
        ("Young", "Old", "Young"),
        ("3\n", "x\n", "count"),
        ("3\n", "9\n", "promises 9"),
        ("3\n", "²\n", "count"),
        ("3\n", "9" * 5000 + "\n", "count"),
        ("000003.jpg", "000001.jpg", "promises|again"),
        ("000002.jpg -1", "000002.jpg", "row 4: has 39 labels"),
    ],
)
def test_bad_attribute_lists_cost_one_line(
    registry: Registry, tmp_path: Path, photo: Write, old: str, new: str, expected: str
) -> None:
    root = celeba(registry, tmp_path, photo)
    path = root / "celeba/list_attr_celeba.txt"
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(InputError, match=expected) as caught:
        read_faces(registry.get("celeba"), root, "all")
    assert "\n" not in str(caught.value)


def test_blank_lines_in_celebas_lists(registry: Registry, tmp_path: Path, photo: Write) -> None:
    root = celeba(registry, tmp_path, photo)
    for path in (root / "celeba").glob("*.txt"):
        path.write_text(path.read_text() + "\n \n")
    assert len(read_faces(registry.get("celeba"), root, "val").faces) == 1


@pytest.mark.parametrize(
    "name", ["list_attr_celeba.txt", "list_eval_partition.txt", "img_align_celeba"]
)
def test_a_missing_part_of_celeba_is_named(
    registry: Registry, tmp_path: Path, photo: Write, name: str
) -> None:
    root = celeba(registry, tmp_path, photo)
    (root / "celeba" / name).rename(root / "elsewhere")
    with pytest.raises(InputError, match=name):
        read_faces(registry.get("celeba"), root)


def test_celeba_hq(registry: Registry, tmp_path: Path, photo: Write) -> None:
    base = tmp_path / "CelebAMask-HQ"
    photo(base / "CelebA-HQ-img/0.jpg")
    text = attributes(registry, {"0.jpg": 1})
    (base / "CelebAMask-HQ-attribute-anno.txt").write_text(text)
    index = read_faces(registry.get("celeba-hq"), tmp_path)
    assert [face.id for face in index.faces] == ["0.jpg"]
    assert index.faces[0].labels["Male"] == "1" and "no splits" in index.notes[0]


# -- FFHQ ------------------------------------------------------------------------------------


def said(gender: str, age: float, width: int = 10) -> dict[str, object]:
    box = {"width": width, "height": width, "top": 0, "left": 0}
    return {"faceRectangle": box, "faceAttributes": {"gender": gender, "age": age}}


def features(root: Path, faces: dict[int, object]) -> Path:
    (root / "json").mkdir(parents=True)
    for number, value in faces.items():
        (root / f"json/{number:05d}.json").write_text(json.dumps(value))
    return root


@pytest.mark.parametrize("nested", [True, False])
@pytest.mark.parametrize("images", ["images1024x1024", "thumbnails128x128"])
def test_ffhq_with_features(
    registry: Registry, tmp_path: Path, photo: Write, nested: bool, images: str
) -> None:
    root = features(tmp_path, {59999: [said("male", 5)], 61234: [said("female", 31.0)]})
    name = "61000/61234.png" if nested else "61234.png"
    photo(root / images / name)
    index = read_faces(registry.get("ffhq"), root)
    (face,) = index.faces
    assert face.id == name
    assert face.labels == {"gender": "female", "age_group": "30-39", "age": "31"}
    assert load(face.source).shape == (8, 8, 3)
    assert len(read_faces(registry.get("ffhq"), root, "train").faces) == 1
    assert len(read_faces(registry.get("ffhq"), root, "all").faces) == 2


def test_the_largest_of_several_faces_counts(
    registry: Registry, tmp_path: Path, photo: Write
) -> None:
    root = features(tmp_path, {60000: [said("male", 5, 10), said("female", 70, 20)]})
    photo(root / "thumbnails128x128/60000.png")
    (face,) = read_faces(registry.get("ffhq"), root).faces
    assert face.labels["gender"] == "female" and face.labels["age_group"] == "more than 70"


def test_photos_without_a_labelled_face_are_listed(
    registry: Registry, tmp_path: Path, photo: Write
) -> None:
    root = features(tmp_path, {60000: [], 60001: [said("male", 5)]})
    photo(root / "thumbnails128x128/60001.png")
    index = read_faces(registry.get("ffhq"), root)
    assert [problem.where for problem in index.problems] == ["60000.png"]
    assert len(index.faces) == 1


@pytest.mark.parametrize(
    "value",
    [{"a": 1}, [{}], [3], "text", [said("male", "old")], [said("unknown", 5)],  # type: ignore[arg-type]
     [said("male", float("nan"))], [said("male", 1e9)], [said("male", "\uff13\uff15")]],  # type: ignore[arg-type]
)  # fmt: skip
def test_features_of_another_shape_cost_one_line(
    registry: Registry, tmp_path: Path, photo: Write, value: object
) -> None:
    root = features(tmp_path, {60000: value})
    photo(root / "thumbnails128x128/60000.png")
    with pytest.raises(InputError, match=r"^[^\n]*60000[^\n]*$"):
        read_faces(registry.get("ffhq"), root)


def test_a_deeply_nested_json_is_survived(registry: Registry, tmp_path: Path, photo: Write) -> None:
    root = features(tmp_path, {60000: []})
    (root / "json/60000.json").write_text("[" * 100_000)
    photo(root / "thumbnails128x128/60000.png")
    with pytest.raises(InputError, match="60000.json"):
        read_faces(registry.get("ffhq"), root)


def test_a_json_named_in_other_digits_is_refused(
    registry: Registry, tmp_path: Path, photo: Write
) -> None:
    root = features(tmp_path, {60000: []})
    (root / "json/60000.json").rename(root / "json/\uff16\uff10\uff10\uff10\uff10.json")
    photo(root / "thumbnails128x128/60000.png")
    with pytest.raises(InputError, match="is not the number of an FFHQ photo"):
        read_faces(registry.get("ffhq"), root)


AGING = "image_number,age_group,age_group_confidence,gender,gender_confidence\n"


def test_ffhq_aging(registry: Registry, tmp_path: Path, photo: Write) -> None:
    photo(tmp_path / "ffhq_aging256x256/60000/60001.png")
    text = f"{AGING}0,0-2,1,male,1\n60001,70-120,0.6,female,1.0\n"
    (tmp_path / "ffhq_aging_labels.csv").write_text(text)
    (face,) = read_faces(registry.get("ffhq-aging"), tmp_path).faces
    assert face.id == "60000/60001.png"
    assert face.labels == {"gender": "female", "age_group": "70-120"}
    assert len(read_faces(registry.get("ffhq-aging"), tmp_path, "all").faces) == 2


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("60001,06-Mar,1,male,1", "3-6.*--repair"),
        ("../1,0-2,1,male,1", "number"),
        ("\uff16\uff10\uff10\uff10\uff11,0-2,1,male,1", "number"),
        ("600010,0-2,1,male,1", "number"),
    ],
)
def test_bad_rows_of_ffhq_aging(
    registry: Registry, tmp_path: Path, photo: Write, row: str, expected: str
) -> None:
    photo(tmp_path / "thumbnails128x128/60001.png")
    (tmp_path / "ffhq_aging_labels.csv").write_text(f"{AGING}{row}\n")
    with pytest.raises(InputError, match=expected):
        read_faces(registry.get("ffhq-aging"), tmp_path)


@pytest.mark.parametrize(("name", "expected"), [("ffhq", "json/"), ("ffhq-aging", "aging_labels")])
def test_ffhq_without_labels(
    registry: Registry, tmp_path: Path, photo: Write, name: str, expected: str
) -> None:
    photo(tmp_path / "thumbnails128x128/60001.png")
    with pytest.raises(InputError, match=expected):
        read_faces(registry.get(name), tmp_path)


def test_ffhq_without_photos(registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="thumbnails128x128"):
        read_faces(registry.get("ffhq"), features(tmp_path, {60000: []}))


# -- Race folders and LFW -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "folder"), [("rfw", "data"), ("bupt-balancedface", "race_per_7000")]
)
def test_the_race_is_the_folder(
    registry: Registry, tmp_path: Path, photo: Write, name: str, folder: str
) -> None:
    photo(tmp_path / folder / "African/m.01/m.01_0001.jpg", 1)
    photo(tmp_path / folder / "Indian/m.02/m.02_0001.jpg", 2)
    (tmp_path / "txts/African").mkdir(parents=True)
    (tmp_path / "txts/African/African_people.txt").write_text("m.01\t1\n")
    index = read_faces(registry.get(name), tmp_path)
    assert [(face.id, face.labels["race"]) for face in index.faces] == [
        ("African/m.01/m.01_0001.jpg", "African"),
        ("Indian/m.02/m.02_0001.jpg", "Indian"),
    ]
    assert [file for file, _ in index.source_files] == ["txts/African/African_people.txt"]


def test_an_unknown_race_folder_is_refused(
    registry: Registry, tmp_path: Path, photo: Write
) -> None:
    photo(tmp_path / "data/Caucasion/m.01/m.01_0001.jpg")
    with pytest.raises(InputError, match="Caucasion.*Caucasian"):
        read_faces(registry.get("rfw"), tmp_path)


def test_photos_outside_the_race_folders_are_listed(
    registry: Registry, tmp_path: Path, photo: Write
) -> None:
    photo(tmp_path / "data/Asian/m.01/m.01_0001.jpg")
    photo(tmp_path / "data/readme.png")
    index = read_faces(registry.get("rfw"), tmp_path)
    assert [problem.where for problem in index.problems] == ["readme.png"]


def test_no_race_folders(registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="<race>/<identity>"):
        read_faces(registry.get("rfw"), tmp_path)


@pytest.mark.parametrize("inner", ["lfw", "lfw-deepfunneled", "."])
def test_lfw_has_no_labels(registry: Registry, tmp_path: Path, photo: Write, inner: str) -> None:
    photo(tmp_path / inner / "Some_Body/Some_Body_0001.jpg")
    index = read_faces(registry.get("lfw"), tmp_path)
    assert [face.id for face in index.faces] == ["Some_Body/Some_Body_0001.jpg"]
    assert index.vocabulary == {} and index.faces[0].labels == {}


@pytest.mark.parametrize(
    ("dataset", "folder", "photo_name"),
    [
        ("utkface", "part1", "20_0_1_2017.jpg"),
        ("rfw", "data/Asian", "m.01/m.01_0001.jpg"),
        ("lfw", "lfw/Ann_One", "Ann_One_0001.jpg"),
    ],
)
@pytest.mark.parametrize("others", [True, False])
def test_a_linked_folder_is_refused_once(
    registry: Registry,
    tmp_path: Path,
    photo: Write,
    dataset: str,
    folder: str,
    photo_name: str,
    others: bool,
) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    photo(outside / photo_name)
    (root / folder).parent.mkdir(parents=True)
    (root / folder).symlink_to(outside)
    if others:
        photo((root / folder).with_name("Indian") / photo_name)
    with pytest.raises(InputError) as error:
        read_faces(registry.get(dataset), root)
    line = str(error.value)
    inner = folder.rsplit("/", 1)[-1]
    for part in (f"{inner}' is a link to", str(outside), "replace the link by the folder"):
        assert line.count(part) == 1, line


def test_an_empty_lfw(registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="photos"):
        read_faces(registry.get("lfw"), tmp_path)


# -- A folder with a CSV ----------------------------------------------------------------------


def test_any_column_of_a_folders_csv_is_a_label(
    registry: Registry, tmp_path: Path, photo: Write
) -> None:
    photo(tmp_path / "a/1.jpg")
    text = "file,hat,score\na/1.jpg,red,10\nb.jpg,blue,9\n"
    (tmp_path / "anything.csv").write_text(text)
    index = read_faces(registry.get("folder"), tmp_path)
    assert [dict(face.labels) for face in index.faces] == [
        {"hat": "red", "score": "10"}, {"hat": "blue", "score": "9"},
    ]  # fmt: skip
    assert index.vocabulary == {"hat": ("blue", "red"), "score": ("9", "10")}
    assert load(index.faces[0].source).shape == (8, 8, 3)


def test_very_long_numbers_are_words(registry: Registry, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text(f"file,x\n1.jpg,{'9' * 5000}\n2.jpg,3\n")
    assert len(read_faces(registry.get("folder"), tmp_path).vocabulary["x"]) == 2


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, "labels.csv"),
        ({"a.csv": "file,x\n1.jpg,y\n", "b.csv": "file,x\n1.jpg,y\n"}, "several CSVs"),
        ({"a.csv": "name,x\n1.jpg,y\n"}, "'file'"),
        ({"a.csv": "file,\n1.jpg,y\n"}, "no name"),
        ({"a.csv": "file,x\n1.jpg,\n"}, "empty"),
        ({"a.csv": "file,x\n../1.jpg,y\n"}, "leaves"),
    ],
)
def test_bad_folders_cost_one_line(
    registry: Registry, tmp_path: Path, files: dict[str, str], expected: str
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=expected) as caught:
        read_faces(registry.get("folder"), tmp_path)
    assert "\n" not in str(caught.value)


def test_labels_csv_is_preferred(registry: Registry, tmp_path: Path) -> None:
    (tmp_path / "notes.csv").write_text("what,ever\n1,2\n")
    (tmp_path / "labels.csv").write_text("file,x\n1.jpg,y\n")
    assert len(read_faces(registry.get("folder"), tmp_path).faces) == 1


def test_a_users_folder_with_splits_and_a_vocabulary(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(
        "mine: {title: t, layout: folder, vocabulary: {x: [a, b]}, labels_from: people,"
        " group_by: [x], splits: {val: v.csv, train: t.csv}, crop: as-is, licence: l, terms: t,"
        " may_publish_images: false, citation: c, obtain: ask}\n"
    )
    (tmp_path / "v.csv").write_text("file,x,y\n1.jpg,a,free\n")
    (tmp_path / "t.csv").write_text("file,x,y\n2.jpg,c,free\n")
    card = load_registry(tmp_path / "mine.yaml").get("mine")
    index = read_faces(card, tmp_path, "val")
    assert index.vocabulary == {"x": ("a", "b"), "y": ("free",)}
    with pytest.raises(InputError, match="unknown x 'c'"):
        read_faces(card, tmp_path, "all")


# -- All -------------------------------------------------------------------------------------


def test_faces_can_be_sent_to_another_process(
    registry: Registry, tmp_path: Path, photo: Write
) -> None:
    photo(tmp_path / "1.jpg")
    (tmp_path / "labels.csv").write_text("file,x\n1.jpg,y\n")
    own = read_faces(registry.get("folder"), tmp_path).faces
    bundled = read_faces(registry.get("skimage-faces"), None).faces[:1]
    parquet(tmp_path / "hf", [0], ["a.jpg"])
    hub = read_faces(registry.get("fairface-hf"), tmp_path / "hf").faces
    for face in (*own, *bundled, *hub):
        again = pickle.loads(pickle.dumps(face))
        assert again == face and again.source.read() == face.source.read()


# -- FHIBE -----------------------------------------------------------------------------------

FHIBE_ROW = {
    "image_id": "i0_s0", "filepath": "", "json_path": "x.json", "subject_id": "s0",
    "consent": "True", "age": "24", "nationality": "['93. Indian']", "ancestry": "['11. Asia']",
    "pronoun": "['1. He/him/his']", "natural_skin_color": "2. [164, 131, 103]",
    "apparent_skin_color": "0. [102, 78, 65]", "segments": "[]",
}  # fmt: skip


@pytest.fixture
def fhibe(tmp_path: Path, photo: Write) -> Callable[..., Path]:
    """Write a tiny FHIBE of the published layout: one row a mapping of what differs."""

    def write(*rows: dict[str, str], inner: str = ".") -> Path:
        root = tmp_path / inner
        labels = root / "data/processed/fhibe_face_crop_align/fhibe_face_crop_align.csv"
        labels.parent.mkdir(parents=True)
        with labels.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(FHIBE_ROW))
            writer.writeheader()
            for number, changes in enumerate(rows):
                person = changes.get("subject_id", f"s{number}")
                name = f"faces_crop_and_align_i{number}_{person}.png"
                path = f"data/raw/fhibe_downsampled/{person}/i{number}/{name}"
                writer.writerow({**FHIBE_ROW, "subject_id": person, "filepath": path, **changes})
                if ".." not in changes.get("filepath", ""):
                    photo(root / path, number)
        return tmp_path

    return write


def test_fhibe_s_numbered_lists_become_words(
    registry: Registry, fhibe: Callable[..., Path]
) -> None:
    several = {
        "ancestry": "['0. Africa', '4. Southern Africa']", "age": "70",
        "pronoun": "['0. She/her/hers', '2. They/them/their']", "segments": "x" * 200_000,
    }  # fmt: skip
    mixed = {
        "ancestry": "['0. Africa', '1. Northern Africa', '17. Europe']", "age": "18",
        "pronoun": "['5. Prefer not to say']", "natural_skin_color": "5. [198, 180, 157]",
    }  # fmt: skip
    root = fhibe({}, several, mixed, inner="fhibe.20250716.u.x_downsampled_public")
    index = read_faces(registry.get("fhibe"), root)
    columns = (
        "pronoun", "ancestry", "age_group", "age5", "natural_skin_color", "apparent_skin_color",
    )  # fmt: skip
    assert [[face.labels[c] for c in columns] for face in index.faces] == [
        ["He/him/his", "Asia", "20-29", "18-29", "Tan (IV)", "Dark (VI)"],
        ["more than one", "Africa", "more than 70", "60 or older", "Tan (IV)", "Dark (VI)"],
        ["Prefer not to say", "more than one", "10-19", "18-29", "Very light (I)", "Dark (VI)"],
    ]
    assert index.faces[0].source.read() and index.card.revocable


def test_fhibe_has_one_photo_a_person_and_none_without_consent(
    registry: Registry, fhibe: Callable[..., Path]
) -> None:
    rows = [{"subject_id": "a"}, {"subject_id": "b", "consent": "False"}, {"subject_id": "a"},
            {"subject_id": "c"}]  # fmt: skip
    index = read_faces(registry.get("fhibe"), fhibe(*rows))
    assert [face.id.split("/")[3] for face in index.faces] == ["a", "c"]
    (problem,) = index.problems
    assert problem.kind == "no_consent" and "row 3" in problem.where


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ancestry": "[]"}, r"unknown ancestry '\[\]'"),
        ({"pronoun": "['9. Somebody']"}, "unknown pronoun 'Somebody'"),
        ({"natural_skin_color": "9. [0, 0, 0]"}, "unknown natural_skin_color"),
        ({"age": "old"}, "unknown age_group 'old'"),
        ({"filepath": "../../etc/passwd.png"}, "leaves the data folder"),
    ],
)
def test_what_fhibe_does_not_say_is_refused(
    registry: Registry, fhibe: Callable[..., Path], changes: dict[str, str], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        read_faces(registry.get("fhibe"), fhibe({}, changes))


def test_a_folder_without_fhibe_s_labels_says_how_to_get_them(
    registry: Registry, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"fhibe_face_crop_align.csv.*fairnessbenchmark"):
        read_faces(registry.get("fhibe"), tmp_path)
