import base64
import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pulse_audit import store
from pulse_audit.report import gallery as room
from pulse_audit.report.gallery import data_uri, gallery


def png(path: Path, size=(8, 8), colour=(200, 100, 50)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    return path


def decoded(uri: str) -> Image.Image:
    head, data = uri.split(",", 1)
    assert head == "data:image/png;base64"
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
            "spec": {},
            "dataset": {"vocabulary": {}},
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


def test_the_first_faces_of_each_group_are_shown_in_the_order_of_the_plan(tmp_path):
    faces = ["f3", "f1", "f2", "f9"]
    groups = {"f1": "B", "f2": "B", "f3": "B", "f9": "A"}
    shown = gallery(tmp_path, manifest(*faces), draws(tmp_path, faces), groups, ["A", "B"])
    assert [(g, [f.face_id for f in fs]) for g, fs in shown.groups] == [
        ("A", ["f9"]),
        ("B", ["f3", "f1"]),
    ]


def test_a_face_shows_original_input_and_every_arm_once_if_it_interpolates(tmp_path):
    shown = gallery(tmp_path, manifest("f"), draws(tmp_path, ["f"]), {"f": "A"}, ["A"])
    assert shown.heads == [("pulse:g", 2), ("bicubic", 1)]
    pictures = shown.groups[0][1][0].pictures
    assert len(pictures) == 5 == shown.n_pictures
    assert all(p.source for p in pictures) and all(p.alt for p in pictures)


@pytest.mark.parametrize(
    ("changes", "caption", "state"),
    [
        ({}, "feasible 4.1e‑3", "good"),
        ({"feasible": False, "status": "infeasible"}, "infeasible 4.1e‑3", "bad"),
        ({"status": "error", "reason": "not finite"}, "error: not finite", "bad"),
        ({"status": "no_face"}, "no face", "bad"),
        ({"downscale_error": np.nan, "feasible": None}, "infeasible", "bad"),
    ],
)
def test_captions_say_what_became_of_a_draw(tmp_path, changes, caption, state):
    samples = draws(tmp_path, ["f"], ["pulse:g"], 1)
    samples["feasible"] = samples["feasible"].astype(object)
    for column, value in changes.items():
        samples[column] = value
    shown = gallery(tmp_path, manifest("f"), samples, {"f": "A"}, ["A"])
    output = shown.groups[0][1][0].pictures[2]
    assert (output.caption, output.state) == (caption, state)


def test_a_run_without_pictures_has_no_gallery(tmp_path):
    samples = draws(tmp_path, ["f"])
    samples["image"] = None
    assert gallery(tmp_path, manifest("f"), samples, {"f": "A"}, ["A"]) is None


def test_a_draw_that_is_not_there_yet_leaves_a_gap(tmp_path):
    samples = draws(tmp_path, ["f", "g"], ["pulse:g"], 2).iloc[:3]
    shown = gallery(tmp_path, manifest("f", "g"), samples, {"f": "A", "g": "A"}, ["A"])
    last = shown.groups[0][1][1].pictures[-1]
    assert (last.source, last.caption) == (None, "not finished")
