import base64
import io
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from pulse_audit import store
from pulse_audit.report import gallery as room
from pulse_audit.report.gallery import cards, data_uri, first_faces, seeded, viewer_note


def png(path: Path, size=(8, 8), colour=(200, 100, 50)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    return path


def decoded(uri: str) -> Image.Image:
    head, data = uri.split(",", 1)
    assert head in ("data:image/png;base64", "data:image/jpeg;base64")
    return Image.open(io.BytesIO(base64.b64decode(data)))


def test_a_small_image_keeps_its_pixels(tmp_path):
    png(tmp_path / "images" / "a.png")
    uri, pixelated = data_uri(tmp_path, "images/a.png")
    image = decoded(uri)
    assert (image.size, image.getpixel((3, 3)), pixelated) == ((8, 8), (200, 100, 50), True)


def test_a_large_image_is_reduced(tmp_path):
    png(tmp_path / "a.png", (1024, 512))
    uri, pixelated = data_uri(tmp_path, "a.png")
    assert (decoded(uri).size, pixelated) == ((128, 64), False)


def test_what_else_is_in_a_file_does_not_reach_the_page(tmp_path):
    path = png(tmp_path / "a.png")
    path.write_bytes(path.read_bytes() + b"<script>alert(1)</script>")
    uri, _ = data_uri(tmp_path, "a.png")
    assert b"script" not in base64.b64decode(uri.split(",", 1)[1])


@pytest.mark.parametrize(
    "form", ["../secret.png", "images/../../secret.png", "ABSOLUTE", "link.png"]
)
def test_no_path_climbs_out_of_the_run(tmp_path, form):
    secret = png(tmp_path / "secret.png")
    run = tmp_path / "run"
    (run / "images").mkdir(parents=True)
    (run / "link.png").symlink_to(secret)
    relative = str(secret) if form == "ABSOLUTE" else form
    assert data_uri(run, relative) == (None, False)


@pytest.mark.parametrize("relative", [None, "", 7, "a\0b", "images", "missing.png", float("nan")])
def test_what_is_no_path_gives_no_picture(tmp_path, relative):
    (tmp_path / "images").mkdir()
    assert data_uri(tmp_path, relative) == (None, False)


def test_what_is_no_image_gives_no_picture(tmp_path):
    (tmp_path / "a.png").write_bytes(b"<svg onload='alert(1)'/>")
    Image.new("RGB", (4, 4)).save(tmp_path / "b.png", format="TIFF")
    (tmp_path / "c.png").write_bytes(png(tmp_path / "d.png").read_bytes()[:40])
    assert [data_uri(tmp_path, f"{n}.png")[0] for n in "abc"] == [None] * 3


def test_an_image_of_too_many_pixels_is_not_decoded(tmp_path, monkeypatch):
    monkeypatch.setattr(room, "MAX_PIXELS", 60)
    png(tmp_path / "a.png")
    assert data_uri(tmp_path, "a.png") == (None, False)


def manifest(*faces):
    return store.check_manifest(
        {
            "schema": 1,
            "spec": {"group_by": ["race"]},
            "dataset": {"vocabulary": {}},
            "attributes": {"vocabulary": {"race": ["A", "B"]}},
            "units": [],
            "faces": [{"id": face} for face in faces],
            "arms": {"pulse:g": {"kind": "pulse"}, "bicubic": {"kind": "interpolation"}},
        }
    )


def draws(run: Path, faces, arms=("pulse:g", "bicubic"), n=2) -> pd.DataFrame:
    rows = []
    for arm in arms:
        for face in faces:
            png(run / store.original_path(face))
            for draw in range(n):
                png(run / store.lr_path(face, "clean", 8, draw), (4, 4))
                path = store.output_path(arm, face, "clean", 8, draw)
                png(run / path)
                rows.append(
                    {
                        "face_id": face, "arm": arm, "condition": "clean", "scale": 8,
                        "draw": draw, "status": "ok", "feasible": True,
                        "downscale_error": 0.0041, "image": path, "reason": None,
                    }
                )  # fmt: skip
    return pd.DataFrame(rows)


def labelled(samples: pd.DataFrame, groups: dict[str, str]) -> pd.DataFrame:
    """Give draws labels and predictions: every output reads as A."""
    samples["label_race"] = samples["face_id"].map(groups)
    samples["hr_race"], samples["sr_race"] = samples["label_race"], "A"
    of_face = {"A": [0.75, 0.25], "B": [0.25, 0.75]}
    samples["hr_race_p"] = samples["label_race"].map(of_face)
    samples["sr_race_p"] = [[0.75, 0.25]] * len(samples)
    samples["seed"], samples["psnr"] = 2**62, 20.0
    return samples


GROUPS = {"f1": "B", "f2": "B", "f3": "B", "f9": "A"}


def test_first_faces_are_of_as_many_groups_as_there_are(tmp_path):
    samples = labelled(draws(tmp_path, GROUPS), GROUPS)
    known = manifest(*GROUPS)
    shown = first_faces(known, tmp_path, cards(known, samples))
    assert sorted(card["group"]["race"] for card in shown[:2]) == ["A", "B"]
    assert {card["face"] for card in shown} == {*GROUPS}
    # interpolation gives the same answer each time
    assert [len(shown[0]["by_arm"][arm]) for arm in ("pulse:g", "bicubic")] == [2, 1]
    assert len(shown[0]["pictures"]) == 5 and all(shown[0]["pictures"])


def test_a_card_holds_what_was_measured(tmp_path):
    samples = labelled(draws(tmp_path, ["f1"]), GROUPS)
    (card,) = cards(manifest("f1"), samples)
    assert card["shift"] == 0.5  # total variation of (0.25, 0.75) and (0.75, 0.25)
    assert card["draws"][0]["changed"] == "B → A"
    assert card["draws"][0]["seed"] == str(2**62)  # beyond what JavaScript holds as a number
    assert card["draws"][0]["metrics"]["PSNR"] == 20


def test_many_outputs_are_sampled_by_face_and_seed(tmp_path, monkeypatch):
    monkeypatch.setattr(room, "MAX_OUTPUTS", 8)
    samples = labelled(draws(tmp_path, GROUPS), GROUPS)
    made = cards(manifest(*GROUPS), samples)
    assert {card["face"] for card in made} == set(seeded(manifest(), list(GROUPS))[:2])
    assert viewer_note(samples, made).startswith("8 of 16 outputs: all of 2 faces, sampled")


def test_a_run_without_pictures_has_no_first_faces(tmp_path):
    samples = labelled(draws(tmp_path / "elsewhere", ["f1"]), GROUPS)
    known = manifest("f1")
    assert first_faces(known, tmp_path, cards(known, samples)) == []
