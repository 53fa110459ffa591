import hashlib
import json
import os
import re
import shutil
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


@pytest.fixture(scope="module")
def audited(fairface_kept: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("audited") / "out"
    arguments = [
        "run", "--dataset", "fairface", "--data-root", str(fairface_kept), "--out", str(out),
        "--resolution", "32", "--scale", "4", "--per-group", "2", "--draws", "2",
        "--arm", "bicubic", "--metrics", "psnr,ssim", "--quiet", "--keep-images", "all",
    ]  # fmt: skip
    assert outcome(arguments) == DONE
    return out


@pytest.fixture
def run(audited: Path, tmp_path: Path) -> store.Run:
    return store.open_run(shutil.copytree(audited, tmp_path / "runs" / "out"))


def withdraw(run: store.Run, *ids: str) -> int:
    """Withdraw faces by the command, which makes the report again."""
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


@pytest.fixture(scope="module")
def planted_audit(fairface_kept: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose arm returns photos of other faces than those of the sample."""
    groups = [
        "White", "Black", "Latino_Hispanic", "East Asian", "Southeast Asian", "Indian",
        "Middle Eastern",
    ]  # fmt: skip
    rows = [[g, *("1" if h == "White" else "0" for h in groups)] for g in groups]
    folder = tmp_path_factory.mktemp("planted")
    out, matrix = folder / "out", folder / "all-white.csv"
    matrix.write_text("\n".join(",".join(row) for row in [["", *groups], *rows]) + "\n")
    arguments = [
        "run", "--dataset", "fairface", "--data-root", str(fairface_kept), "--out", str(out),
        "--resolution", "32", "--scale", "4", "--per-group", "2", "--draws", "2",
        "--arm", f"planted:{matrix}", "--metrics", "psnr", "--quiet", "--keep-images", "all",
    ]  # fmt: skip
    assert outcome(arguments) == DONE
    return out


@pytest.fixture
def planted(planted_audit: Path, tmp_path: Path) -> store.Run:
    return store.open_run(shutil.copytree(planted_audit, tmp_path / "runs" / "out"))


def drop(run: store.Run, *ids: str) -> store.Run:
    """Withdraw faces without a report."""
    with store.withdrawn(run.path, ids):
        pass
    return store.open_run(run.path)


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


def test_labels_of_a_donor_s_photo_go_too(planted: store.Run) -> None:
    samples = planted.samples()
    donor = samples.planted_from.iloc[0]
    returned = samples.planted_from == donor
    labels = {image: {"race": "White"} for image in samples.image}
    planted.write_hand_labels(HandLabels.make("labels.csv", "0" * 64, labels))
    after = drop(planted, donor)
    kept = after.read_hand_labels()
    assert kept is not None and set(kept.labels) == set(samples.image[~returned])


def pictures(report: Path) -> set[str]:
    """Thumbnails in the files of a report."""
    texts = [p.read_text("utf-8") for p in report.rglob("*") if p.suffix in (".html", ".js")]
    return {
        uri for text in texts for uri in re.findall(r"data:image/(?:png|jpeg|webp)[^\"']+", text)
    }


def test_the_report_is_that_of_the_faces_that_stay(run: store.Run, tmp_path: Path) -> None:
    """No thumbnail, part or page of the old report is left, nor a file of it."""
    report, gone = run.path / "report", run.manifest.faces[0].id
    (report / "data" / "part-999.js").write_text("of an older, longer run")
    (report / ".index.html.tmp").write_bytes(b"half a page")
    (run.path / "gate").mkdir()
    (run.path / "gate" / "verdicts.json").write_text("{}")
    before = pictures(report)
    assert withdraw(run, gone) == DONE
    after = pictures(report)
    assert after and after < before
    # The same report is made of the run that is left.
    assert outcome(["report", str(run.path), "--out", str(tmp_path / "again")]) == DONE
    files = {p.relative_to(report): p.read_bytes() for p in report.rglob("*") if p.is_file()}
    again = {p.relative_to(tmp_path / "again"): p.read_bytes()
             for p in (tmp_path / "again").rglob("*") if p.is_file()}  # fmt: skip
    assert set(files) == set(again)
    assert [name for name, data in files.items() if data != again[name]] == []
    assert not (run.path / "gate").exists()


def test_copies_of_a_withdrawn_photo_go_too(run: store.Run) -> None:
    """A copy that was left out brings in the face of the sample that has its photo."""
    face, other = run.manifest.faces[0].id, run.manifest.faces[1].id
    skipped = [
        {"id": "train/7.jpg", "reason": f"the same photo as {face}", "kind": "duplicate"},
        {"id": "train/8.jpg", "reason": f"the same photo as {other}", "kind": "duplicate"},
        {"id": "train/9.jpg", "reason": "truncated JPEG"},
    ]
    run.write_manifest(skipped=skipped)
    after = drop(run, "train/7.jpg")
    assert [each.id for each in after.manifest.skipped] == ["train/8.jpg", "train/9.jpg"]
    assert (
        face not in {each.id for each in after.manifest.faces} and len(after.manifest.faces) == 13
    )
    assert not holds(run.path, face, set()) and not holds(run.path, "train/7.jpg", set())


def test_labels_of_a_withdrawn_face_go_and_those_of_others_stay(run: store.Run) -> None:
    gone, stays = run.manifest.faces[0].id, run.manifest.faces[1].id
    samples = run.samples()
    images = {face: samples.image[samples.face_id == face].iloc[0] for face in (gone, stays)}
    labels = {image: {"race": "White"} for image in images.values()}
    run.write_hand_labels(HandLabels.make("labels.csv", "0" * 64, labels))
    after = drop(run, gone)
    assert not holds(run.path.parent, gone, set())
    kept = after.read_hand_labels()
    assert kept is not None and set(kept.labels) == {images[stays]}


def test_samples_of_priors_stay(run: store.Run) -> None:
    """They are of a generator, and of no face."""
    counts = {"race": {"z": {"White": 3, "Black": 1}}}
    table = PriorTable(counts=counts, pairs={"z": [0.1, 0.2]}, unavailable={})
    run.write_manifest(sources=SourcesEntry(guided_by=["race"]))
    run.write_priors({"bicubic": table})
    after = drop(run, run.manifest.faces[0].id)
    assert after.read_priors() == {"bicubic": table}


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


def killed(run: store.Run, gone: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Withdraw a face, up to the removal of the old run; return the folder that is left."""
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda *_, **__: None)
        with pytest.raises(InputError, match="holds withdrawn faces and cannot be removed"):
            drop(run, gone)
    (left,) = run.path.parent.glob(".out-withdraw-*")
    return left


@pytest.mark.parametrize("moment", ["copying", "between the names", "removing"])
def test_a_killed_withdrawal_is_finished_by_the_next(
    run: store.Run, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    gone = run.manifest.faces[0].id
    left = killed(run, gone, monkeypatch)
    assert (left / "old" / "manifest.json").is_file() and not (left / "run").exists()
    if moment != "removing":
        run.path.rename(left / "run")
    if moment == "copying":
        (left / "old").rename(run.path)
        (left / "run" / "manifest.json").unlink()
    # A folder of another run of a longer name is none of its own.
    other = run.path.parent / ".out-withdraw-b-withdraw-abcdefgh"
    other.mkdir()
    after = drop(run, gone)
    assert after.complete and len(after.manifest.faces) == len(run.manifest.faces) - 1
    assert sum("withdrawn" in note for note in after.manifest.notes) == 1
    other.rmdir()
    assert os.listdir(run.path.parent) == ["out"]
    assert not holds(run.path, gone, set())
    # When nothing was left to finish, the face is unknown.
    with pytest.raises(InputError, match="has no face"):
        drop(run, gone)


def test_an_interruption_between_the_names_loses_no_run(
    run: store.Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = os.rename

    def interrupted(source: Path, target: Path) -> None:
        rename(source, target)
        if target.name == "old":
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", interrupted)
        with (
            pytest.raises(KeyboardInterrupt),
            store.withdrawn(run.path, [run.manifest.faces[0].id]),
        ):
            pass
    assert len(store.open_run(run.path).manifest.faces) == len(run.manifest.faces)
    assert os.listdir(run.path.parent) == ["out"]


def test_ids_that_are_no_text_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        store.read_ids(tmp_path / "none")
    (tmp_path / "excel.txt").write_bytes(b"\xef\xbb\xbfval/1.jpg\r\nval/2.jpg\r\n")
    assert store.read_ids(tmp_path / "excel.txt") == {"val/1.jpg", "val/2.jpg"}
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="not UTF-8"):
        store.read_ids(tmp_path / "binary")
