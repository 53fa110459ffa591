"""People's labels of outputs: what a CSV may hold, and what costs one line."""

from pathlib import Path

import pytest

from pulse_audit.datasets import hand_labels
from pulse_audit.datasets.hand_labels import read_hand_labels
from pulse_audit.seeding import sha256
from pulse_audit.types import InputError

IMAGES = ["images/a/1.png", "images/a/2.png", "images/a/3.png"]
WORDS = {"race": ["White", "Black", "Middle Eastern"], "gender": ["Male", "Female"]}


def write(folder: Path, content: str | bytes) -> Path:
    path = folder / "labels.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_labels_by_image_and_an_empty_cell_is_no_label(tmp_path: Path) -> None:
    text = "\ufeffrace,image,gender\r\nWhite,images/a/1.png,\r\n Black ,images/a/2.png,Male\r\n"
    path = write(tmp_path, text)
    labels, digest = read_hand_labels(path, IMAGES, WORDS)
    assert labels == {
        "images/a/1.png": {"race": "White"},
        "images/a/2.png": {"race": "Black", "gender": "Male"},
    }
    assert digest == sha256(path.read_bytes())


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("race\nWhite\n", "row 1: no column 'image'"),
        ("image\nimages/a/1.png\n", "row 1: no column of labels beside 'image'; known: race"),
        ("image,rase\nimages/a/1.png,White\n", "column 'rase' is no label .* did you mean race"),
        ("image,race\nimages/a/1.png,Whit\n", "row 2: race 'Whit' is unknown; did you mean White"),
        (
            "image,race\nimages/a/9.png,White\n",
            "row 2: 'images/a/9.png' is no output .*keep-images",
        ),
        ("image,race\n../../etc/passwd,White\n", "row 2: .* is no output that this run keeps"),
        (
            "image,race\nimages/a/1.png,White\nimages/a/1.png,Black\n",
            "row 3: 'images/a/1.png' is labelled twice",
        ),
        ("image,race\nimages/a/1.png,\n", "labels no output"),
        ("image,race\n", "a header and no rows"),
        ("", "is empty"),
        ("image,race,race\nimages/a/1.png,White,White\n", "names the column 'race' twice"),
        ("image;race\nimages/a/1.png;White\n", "not separated by commas"),
        ("image,race\nimages/a/1.png\n", "row 2: has 1 cells where the header has 2"),
        (b"image,race\nimages/a/1.png,Wh\xefte\n", "row 2: byte 0xef is not UTF-8"),
        ('image,race\n"images/a/1.png,White\n', "is not CSV"),
    ],
)
def test_what_is_wrong_costs_one_line(tmp_path: Path, content: str | bytes, line: str) -> None:
    path = write(tmp_path, content)
    with pytest.raises(InputError, match=line) as error:
        read_hand_labels(path, IMAGES, WORDS)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_missing_and_large_files_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match="is not a file"):
        read_hand_labels(tmp_path / "none.csv", IMAGES, WORDS)
    monkeypatch.setattr(hand_labels, "MAX_BYTES", 2**20)
    path = write(tmp_path, b"image,race\n" + b"x" * 2**20)
    with pytest.raises(InputError, match="larger than 1 MiB"):
        read_hand_labels(path, IMAGES, WORDS)
