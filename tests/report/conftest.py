"""A made-up run of nobody's faces, stored as a real run is."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pulse_audit import store

RACES = (
    "White", "Black", "Latino_Hispanic", "East Asian", "Southeast Asian", "Indian",
    "Middle Eastern",
)  # fmt: skip
ARMS = {
    "pulse:celeba-dcgan32": {
        "kind": "pulse",
        "search": {"preset": "official", "steps": 100, "eps": 0.002},
        "generator": {"name": "celeba-dcgan32", "resolution": 32, "sha256": "ab" * 32},
        "notes": [],
    },
    "bicubic": {"kind": "interpolation", "kernel": "bicubic", "notes": []},
}
LIGHTNESS = dict(zip(RACES, (68, 44, 62, 66, 60, 54, 61), strict=True))


def painted(rng: np.random.Generator, size: int, lightness: float) -> bytes:
    """A skin-coloured ellipse, PNG: nobody's face."""
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    image = np.full((size, size, 3), 0.35)
    image[(x / 0.7) ** 2 + (y / 0.9) ** 2 < 1] = np.array([1.15, 0.85, 0.7]) * lightness / 100
    for side in (-0.3, 0.3):
        image[(x - side) ** 2 + (y + 0.2) ** 2 < 0.02] = 0.1
    image += 0.03 * rng.standard_normal(image.shape)
    return encoded(image)


def encoded(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray((255 * image.clip(0, 1)).round().astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def sample_row(rng, face, arm, condition, draw, kept):
    """One row of made-up but plausible numbers."""
    race = face["labels"]["race"]
    before = LIGHTNESS[race] + face["offset"]
    searched = arm.startswith("pulse")
    after = before + (0.35 * (64 - before) if searched else 0) + rng.normal(0, 2)
    error = rng.gamma(4, 3e-4 if before > 50 else 4.5e-4) if searched else 1e-5
    feasible = bool(error < 2e-3)
    key = (face["id"], condition, 8, draw)
    return {
        "face_id": face["id"],
        "dataset": "fairface",
        "arm": arm,
        "condition": condition,
        "scale": 8,
        "draw": draw,
        "seed": int(rng.integers(2**62)),
        "status": "ok" if feasible else "infeasible",
        "feasible": feasible,
        "downscale_error": error,
        "steps": 100 if searched else 0,
        "seconds": 0.3,
        "image": store.output_path(arm, *key) if kept else None,
        "psnr": rng.normal(21 if searched else 24, 1.5),
        "ssim": rng.normal(0.68 if searched else 0.78, 0.05),
        "hr_ita": 2.2 * (before - 45),
        "sr_ita": 2.2 * (after - 45),
        "hr_hue": 52.0 + face["offset"],
        "sr_hue": 55.0 + rng.normal(0, 4),
        "hr_lightness": before,
        "sr_lightness": after,
        "hr_monk": int(np.clip(11 - before / 9, 1, 10)),
        "sr_monk": int(np.clip(11 - after / 9, 1, 10)),
        "reason": None,
        "label_race": race,
        "label_gender": face["labels"]["gender"],
    }


def make_run(
    path: Path,
    per_group: int = 3,
    draws: int = 2,
    arms: dict = ARMS,
    conditions: tuple = ("clean",),
    images: bool = True,
    races: tuple = RACES,
    **changes,
) -> store.Run:
    """Write a finished run; ``changes`` replace entries of its manifest."""
    rng = np.random.default_rng(7)
    faces = [
        {
            "id": f"val/{number + 1}.jpg",
            "labels": {
                "race": races[number % len(races)],
                "gender": ("Male", "Female")[number % 2],
            },
            "sha256": f"{number:064x}",
            "offset": float(rng.normal(0, 5)),
        }
        for number in range(per_group * len(races))
    ]
    LIGHTNESS.update({race: 55 for race in races if race not in LIGHTNESS})
    cells = [(arm, condition) for condition in conditions for arm in arms]
    units = [
        {"id": f"u{i:05d}", "arm": arm, "condition": condition, "scale": 8,
         "draws": [[face["id"], draw] for face in faces for draw in range(draws)]}
        for i, (arm, condition) in enumerate(cells)
    ]  # fmt: skip
    manifest = {
        "schema": 1,
        "status": "complete",
        "package_version": "0.1.0",
        "spec": {
            "dataset": "fairface", "split": "val", "arms": ["bicubic"], "search": "official",
            "scales": [8], "conditions": list(conditions), "per_group": per_group,
            "draws": draws, "limit": None, "seed": 0, "keep_images": "sample",
            "group_by": ["race", "race,gender"],
        },
        "fingerprint": "3f9c" * 16,
        "execution": {"device": "cpu", "precision": "fp32", "threads": 2, "batch": 8},
        "versions": {"pulse-audit": "0.1.0", "torch": "2.6.0"},
        "platform": "Linux x86_64, Python 3.11",
        "dataset": {
            "name": "fairface", "title": "FairFace", "licence": "CC BY 4.0",
            "terms": "attribution", "citation": "Karkkainen and Joo 2021", "labels_from": "people",
            "crop": "fairface-0.25", "may_publish_images": True,
            "label_files": {"fairface_label_val.csv": "cd" * 32},
            "vocabulary": {"race": list(races), "gender": ["Male", "Female"]},
        },
        "prepared": {"resolution": 32, "crop": "celeba", "aligned": False},
        "faces": [{k: f[k] for k in ("id", "labels", "sha256")} for f in faces],
        "skipped": [
            {"id": "val/99.jpg", "labels": faces[1]["labels"], "reason": "truncated JPEG"}
        ],
        "arms": arms,
        "units": units,
        "unavailable": {
            "lpips": "weights not fetched: pulse-audit fetch lpips",
            "sr_face_found": "not measured by this version",
        },
        "notes": [],
        "started": "2026-01-01T10:00:00+00:00",
        "finished": "2026-01-01T10:05:00+00:00",
        "seconds": 300.0,
        **changes,
    }  # fmt: skip
    path.mkdir(parents=True, exist_ok=True)
    run = store.create_run(path, store.check_manifest(manifest))
    kept = {face["id"] for face in faces[: 2 * len(races)]} if images else set()
    for unit in units:
        write_unit(run, rng, unit, {face["id"]: face for face in faces}, kept)
    return run


def write_unit(run, rng, unit, faces, kept):
    rows = []
    for face_id, draw in unit["draws"]:
        face = faces[face_id]
        row = sample_row(rng, face, unit["arm"], unit["condition"], draw, face_id in kept)
        rows.append(row)
        if row["image"] is not None:
            key = (face_id, unit["condition"], 8, draw)
            for name, size, level in (
                (store.original_path(face_id), 32, row["hr_lightness"]),
                (store.lr_path(*key), 4, row["hr_lightness"]),
                (row["image"], 32, row["sr_lightness"]),
            ):
                run.write_image(name, painted(rng, size, level))
    run.write_unit(unit["id"], rows)


@pytest.fixture(scope="session")
def write_run() -> Callable[..., store.Run]:
    return make_run
