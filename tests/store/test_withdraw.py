import hashlib
import json
import os
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pulse_audit import store
from pulse_audit.cli import BAD_INPUT, DONE, outcome
from pulse_audit.store.hand_labels import HandLabels
from pulse_audit.store.manifest import SourcesEntry
from pulse_audit.store.priors import PriorTable
from pulse_audit.store.withdraw import _faces_named
from pulse_audit.types import InputError


@pytest.fixture
def run(fairface_root: Path, tmp_path: Path) -> store.Run:
    out = tmp_path / "runs" / "out"
    arguments = [
        "run", "--dataset", "fairface", "--data-root", str(fairface_root), "--out", str(out),
        "--resolution", "32", "--scale", "4", "--per-group", "2", "--draws", "2",
        "--arm", "bicubic", "--metrics", "psnr,ssim", "--quiet", "--keep-images", "all",
    ]  # fmt: skip
    assert outcome(arguments) == DONE
    return store.open_run(out)


def withdraw(run: store.Run, *ids: str) -> int:
    listed = run.path.parent.parent / "ids.txt"
    listed.write_text("\n".join(ids) + "\n\n", "utf-8")
    return outcome(["withdraw", str(run.path), "--ids", str(listed)])


def test_nothing_of_a_withdrawn_face_is_left(run: store.Run) -> None:
    gone, before = run.manifest.faces[0], run.samples()
    images = {store.original_path(gone.id), *before.image[before.face_id == gone.id]}
    assert all((run.path / name).is_file() for name in images)
    assert withdraw(run, gone.id) == DONE
    after = store.open_run(run.path)
    assert gone.id not in {face.id for face in after.manifest.faces}
    kept = before[before.face_id != gone.id].reset_index(drop=True)
    assert after.samples().equals(kept)
    assert not any((run.path / name).exists() for name in images)
    assert all((run.path / name).is_file() for name in kept.image)
    texts = [p for p in run.path.rglob("*") if p.suffix in (".json", ".html", ".csv", ".md")]
    assert texts and not any(gone.id in p.read_text("utf-8") for p in texts)
    assert after.complete
    summary = json.loads((run.path / "summary.json").read_text())
    whole = [e for e in summary["estimates"] if e["group_by"] == "all" and e["value"] is not None]
    counts = {e["n_faces"] for e in whole}
    assert counts == {len(run.manifest.faces) - 1}
    assert (run.path / "report" / "index.html").is_file()
    assert os.listdir(run.path.parent) == ["out"]


@pytest.fixture
def planted(fairface_root: Path, tmp_path: Path) -> store.Run:
    """A run whose arm returns photos of other faces than those of the sample."""
    groups = [
        "White", "Black", "Latino_Hispanic", "East Asian", "Southeast Asian", "Indian",
        "Middle Eastern",
    ]  # fmt: skip
    rows = [[g, *("1" if h == "White" else "0" for h in groups)] for g in groups]
    matrix = tmp_path / "all-white.csv"
    matrix.write_text("\n".join(",".join(row) for row in [["", *groups], *rows]) + "\n")
    out = tmp_path / "runs" / "out"
    arguments = [
        "run", "--dataset", "fairface", "--data-root", str(fairface_root), "--out", str(out),
        "--resolution", "32", "--scale", "4", "--per-group", "2", "--draws", "2",
        "--arm", f"planted:{matrix}", "--metrics", "psnr", "--quiet", "--keep-images", "all",
    ]  # fmt: skip
    assert outcome(arguments) == DONE
    return store.open_run(out)


def holds(folder: Path, face_id: str, digests: set[str]) -> list[Path]:
    """Files that name a face, in any column of a Parquet file too, or are one of its images."""
    found = []
    for path in (p for p in folder.rglob("*") if p.is_file()):
        content = path.read_bytes()
        if path.suffix == ".parquet":
            content += str(pq.read_table(path).to_pylist()).encode()
        if face_id.encode() in content or hashlib.sha256(content).hexdigest() in digests:
            found.append(path)
    return found


def test_a_donor_s_photo_is_withdrawn_wherever_it_was_returned(planted: store.Run) -> None:
    before = planted.samples()
    donor = before.planted_from.iloc[0]
    assert donor not in {face.id for face in planted.manifest.faces}
    returned = before[before.planted_from == donor]
    photos = {hashlib.sha256((planted.path / name).read_bytes()).hexdigest()
              for name in returned.image}  # fmt: skip
    assert holds(planted.path, donor, photos)
    assert withdraw(planted, donor) == DONE
    after = store.open_run(planted.path)
    assert after.complete and len(after.samples()) == len(before) - len(returned)
    assert not holds(planted.path.parent, donor, photos)


def test_labels_of_a_withdrawn_face_go_and_those_of_others_stay(run: store.Run) -> None:
    gone, stays = run.manifest.faces[0].id, run.manifest.faces[1].id
    samples = run.samples()
    images = {face: samples.image[samples.face_id == face].iloc[0] for face in (gone, stays)}
    labels = {image: {"race": "White"} for image in images.values()}
    run.write_hand_labels(HandLabels.make("labels.csv", "0" * 64, labels))
    assert withdraw(run, gone) == DONE
    assert not holds(run.path.parent, gone, set())
    kept = store.open_run(run.path).read_hand_labels()
    assert kept is not None and set(kept.labels) == {images[stays]}


def test_samples_of_priors_stay(run: store.Run) -> None:
    """They are of a generator, and of no face."""
    counts = {"race": {"z": {"White": 3, "Black": 1}}}
    table = PriorTable(counts=counts, pairs={"z": [0.1, 0.2]}, unavailable={})
    run.write_manifest(sources=SourcesEntry(guided_by=["race"]))
    run.write_priors({"bicubic": table})
    assert withdraw(run, run.manifest.faces[0].id) == DONE
    assert store.open_run(run.path).read_priors() == {"bicubic": table}


def test_samples_of_priors_of_another_run_are_refused(run: store.Run) -> None:
    run.write_priors({"pulse:net": PriorTable(counts={}, pairs={}, unavailable={})})
    with pytest.raises(InputError, match=r"priors\.json: is damaged"):
        store.open_run(run.path).read_priors()


def test_what_cannot_be_withdrawn_changes_nothing(
    run: store.Run, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (run.path / "manifest.json").read_bytes()
    assert withdraw(run, "val/none.jpg") == BAD_INPUT
    assert "has no face 'val/none.jpg'" in capsys.readouterr().err
    assert withdraw(run, *(face.id for face in run.manifest.faces)) == BAD_INPUT
    assert "no face would be left" in capsys.readouterr().err
    assert withdraw(run) == BAD_INPUT
    assert "names no face" in capsys.readouterr().err
    assert (run.path / "manifest.json").read_bytes() == before
    assert os.listdir(run.path.parent) == ["out"]


def test_a_folder_names_all_photos_of_a_person(run: store.Run) -> None:
    """As FHIBE's, whose photos lie in a folder a person;"""
    faces = [face.id for face in run.manifest.faces]
    named = _faces_named(["val"], {*faces, "train/1.jpg", "valid/1.jpg"})
    assert named == set(faces)
    assert _faces_named([faces[0], f"{faces[1]}"], set(faces)) == set(faces[:2])
    with pytest.raises(InputError, match="has no face 'va'"):
        _faces_named(["va"], set(faces))


def test_an_interruption_leaves_the_old_run(run: store.Run) -> None:
    faces = len(run.manifest.faces)
    with pytest.raises(KeyboardInterrupt), store.withdrawn(run.path, [run.manifest.faces[0].id]):
        raise KeyboardInterrupt
    assert len(store.open_run(run.path).manifest.faces) == faces
    assert os.listdir(run.path.parent) == ["out"]


def test_ids_that_are_no_text_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        store.read_ids(tmp_path / "none")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="not UTF-8"):
        store.read_ids(tmp_path / "binary")
