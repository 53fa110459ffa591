"""Which photos a shipped model saw."""

import gzip
from pathlib import Path

import pytest

from pulse_audit import store
from pulse_audit.harness.provenance import Photos, note_of_seen, notes_of_seen, read_photos
from pulse_audit.types import InputError

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


def test_photos_a_model_was_trained_on_are_counted() -> None:
    seen = Photos(frozenset({FACES[1]["sha256"], FACES[3]["sha256"], "f" * 64}))
    note = note_of_seen("faces-balanced", seen, RUN)
    assert note is not None and "faces-balanced was trained on 2 of the 4 photos" in note


def test_a_model_that_saw_none_of_them_has_no_note() -> None:
    assert note_of_seen("faces-balanced", Photos(frozenset({"f" * 64})), RUN) is None


def test_names_count_in_fairface_alone() -> None:
    """A 64 px copy has other bytes than the photo, and the same name."""
    seen = Photos(frozenset(), frozenset({"val/2.jpg"}))
    assert note_of_seen("faces-balanced", seen, RUN) is not None
    assert note_of_seen("faces-balanced", seen, run_of("folder")) is None


def test_lists_are_read_from_beside_the_shipped_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "twin-images.txt.gz").write_bytes(
        gzip.compress(f"{2:064x}  val/a b.jpg\n".encode())
    )
    monkeypatch.setattr("pulse_audit.models.shipped.ASSETS", tmp_path)
    notes = notes_of_seen(["twin", "another"], RUN)
    assert [note.split(":")[0] for note in notes] == [
        "twin was trained on 1 of the 4 photos of this run"
    ]


@pytest.mark.parametrize("content", [b"no gzip", gzip.compress(b"not-a-digest\n")])
def test_a_damaged_list_costs_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "list.gz").write_bytes(content)
    with pytest.raises(InputError, match=r"list\.gz"):
        read_photos(tmp_path / "list.gz")
