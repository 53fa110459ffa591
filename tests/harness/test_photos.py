"""Which photos of a run a shipped model was trained on."""

import gzip
from collections.abc import Callable
from pathlib import Path

import pytest

from pulse_audit import store
from pulse_audit.harness.photos import read_training_photos, training_photo_notes
from pulse_audit.types import InputError

WriteList = Callable[[str, str], None]
FACES = [{"id": f"val/{i}.jpg", "sha256": f"{i:064x}"} for i in range(4)]


def run_of(dataset: str) -> store.Manifest:
    return store.check_manifest(
        {
            "schema": 1,
            "spec": {},
            "dataset": {"name": dataset, "vocabulary": {}},
            "arms": {},
            "faces": FACES,
            "units": [],
        }
    )


RUN = run_of("fairface")


@pytest.fixture
def write_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Write the list of training photos of a model where the shipped models are."""
    monkeypatch.setattr("pulse_audit.models.shipped.ASSETS", tmp_path)

    def write(model: str, lines: str) -> None:
        (tmp_path / f"{model}-images.txt.gz").write_bytes(gzip.compress(lines.encode()))

    return write


def test_photos_a_model_was_trained_on_are_counted(write_list: WriteList) -> None:
    write_list("faces-balanced", "\n".join([FACES[1]["sha256"], FACES[3]["sha256"], "f" * 64]))
    (note,) = training_photo_notes(["faces-balanced"], RUN)
    assert "faces-balanced was trained on 2 of the 4 photos" in note


def test_a_model_that_saw_none_of_them_has_no_note(write_list: WriteList) -> None:
    write_list("faces-balanced", "f" * 64)
    assert training_photo_notes(["faces-balanced"], RUN) == []


def test_names_count_in_fairface_alone(write_list: WriteList) -> None:
    """A 64 px copy has other bytes than the photo, and the same name."""
    write_list("faces-balanced", f"{'f' * 64}  val/2.jpg")
    assert training_photo_notes(["faces-balanced"], RUN)
    assert not training_photo_notes(["faces-balanced"], run_of("folder"))


def test_lists_are_read_from_beside_the_shipped_models(write_list: WriteList) -> None:
    write_list("twin", f"{2:064x}  val/a b.jpg\n")
    notes = training_photo_notes(["twin", "another"], RUN)
    assert [note.split(":")[0] for note in notes] == [
        "twin was trained on 1 of the 4 photos of this run"
    ]


@pytest.mark.parametrize("content", [b"no gzip", gzip.compress(b"not-a-digest\n", mtime=0)])
def test_a_damaged_list_costs_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "list.gz").write_bytes(content)
    with pytest.raises(InputError, match=r"list\.gz"):
        read_training_photos(tmp_path / "list.gz")
