"""What comes with the package is what its cards say it is."""

import csv
import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pulse_audit import listing
from pulse_audit.harness.run import run_audit
from pulse_audit.harness.spec import make_spec, read_spec
from pulse_audit.models.arms import expand_arms
from pulse_audit.models.attributes import load_attributes
from pulse_audit.models.generators import load_generator
from pulse_audit.models.shipped import ASSETS, GENERATORS, shipped_file, shipped_generators
from pulse_audit.training import synthetic
from pulse_audit.training.data import ATTRIBUTION
from pulse_audit.types import InputError

MB = 2**20


def card(name: str) -> dict:
    return json.loads((ASSETS / f"{name}.json").read_text())


def rows() -> list[dict[str, str]]:
    with (ASSETS / "synthetic-faces" / "labels.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_all_weights_together_stay_small() -> None:
    assert sum(path.stat().st_size for path in ASSETS.glob("*.safetensors")) <= 20 * MB
    assert max(path.stat().st_size for path in ASSETS.rglob("*") if path.is_file()) < 16 * MB


@pytest.mark.parametrize("path", sorted(ASSETS.glob("*.json")), ids=lambda path: path.stem)
def test_a_card_bears_the_digest_of_its_weights(path: Path) -> None:
    content = json.loads(path.read_text())
    if "sha256" not in content:
        pytest.skip("a schema, not a card")
    weights = path.with_suffix(".safetensors").read_bytes()
    assert content["sha256"] == hashlib.sha256(weights).hexdigest()


def test_both_twins_ship_and_are_listed_first() -> None:
    assert shipped_generators() == list(GENERATORS)
    listed = [row["name"] for row in listing.rows_of("generators", None)]
    assert listed[:2] == list(GENERATORS)


def test_neither_arm_nor_generator_means_the_twins_and_bicubic() -> None:
    arms = [arm.name for arm in expand_arms([], [])]
    assert arms == [*(f"pulse:{name}" for name in GENERATORS), "bicubic"]


def test_the_twins_differ_in_whom_they_saw_and_in_nothing_else() -> None:
    one, other = (card(name)["card"]["configuration"] for name in GENERATORS)
    assert {key for key in one if one[key] != other[key]} == {"name", "composition"}
    assert sum(one["composition"].values()) == sum(other["composition"].values())
    assert len(set(one["composition"].values())) == 1
    share = other["composition"]["White"] / sum(other["composition"].values())
    assert share == pytest.approx(0.82)
    assert card(GENERATORS[0])["card"]["kimg"] == card(GENERATORS[1])["card"]["kimg"]


@pytest.mark.parametrize("name", GENERATORS)
def test_a_twin_s_card_says_what_it_has_to(name: str) -> None:
    said = card(name)["card"]
    assert said["attribution"] == ATTRIBUTION
    assert said["interim"] is (said["resolution"] < 64)
    assert not said["interim"] or said["caveat"].startswith("interim model, 32 px")
    measured = said["measured"]
    assert measured["samples"] == 10_000
    assert measured["attribute_net"]["sha256"] == card("faces-attributes")["sha256"]
    assert measured["distances"]["features"] == "faces-attributes"
    assert measured["feasible_on_own_samples"]["share"] >= 0.95
    near = measured["nearest_training_photo"]
    assert near["samples"]["first_percentile"] > 0.5 * near["held_out"]["first_percentile"]
    assert (
        said["photos_sha256"]
        == hashlib.sha256((ASSETS / f"{name}-images.txt.gz").read_bytes()).hexdigest()
    )
    assert (ASSETS / f"{name}.md").is_file() and (ASSETS / f"{name}.png").is_file()


def test_the_skewed_twin_shows_more_white_faces() -> None:
    balanced, skewed = (
        card(name)["card"]["measured"]["composition"]["race"]["White"] for name in GENERATORS
    )
    assert skewed["share"] - balanced["share"] >= 0.2
    assert skewed["low"] > balanced["high"]


@pytest.mark.parametrize("name", GENERATORS)
def test_a_twin_s_samples_are_not_flat(name: str) -> None:
    """Loaded through the catalogue, it draws images that differ and are not uniform."""
    generator = load_generator(name)
    assert generator.card.training_composition is not None
    drawn = synthetic.draw(generator, name, range(8)).astype(float)
    assert drawn.std(axis=(1, 2, 3)).min() > 10
    assert drawn.std(axis=0).mean() > 20


def test_evaluation_faces_are_balanced_within_each_half() -> None:
    table = rows()
    races = card("faces-attributes")["vocabulary"]["race"]
    per_cell = {
        (name, race): sum((row["generator"], row["race"]) == (name, race) for row in table)
        for name in GENERATORS
        for race in races
    }
    assert min(per_cell.values()) == max(per_cell.values()) >= 10
    assert len({row["file"] for row in table}) == len(table)
    photos = {
        str(path.relative_to(ASSETS / "synthetic-faces"))
        for path in (ASSETS / "synthetic-faces").rglob("*.png")
    }
    assert photos == {row["file"] for row in table}


@pytest.mark.parametrize("name", GENERATORS)
def test_evaluation_faces_can_be_drawn_again_and_are_labelled_by_the_net(name: str) -> None:
    """Every tenth face: the pixels of its sample, and the most probable words."""
    some = [row for row in rows() if row["generator"] == name][::10]
    kept = np.stack([np.asarray(Image.open(ASSETS / "synthetic-faces" / r["file"])) for r in some])
    drawn = synthetic.draw(load_generator(name), name, [int(row["sample_seed"]) for row in some])
    # Other versions of torch and other processors round differently.
    assert np.abs(kept.astype(int) - drawn.astype(int)).max() <= 3
    net = load_attributes(None, "cpu")
    with torch.no_grad():
        seen = net(torch.from_numpy(kept).permute(0, 3, 1, 2).float() / 255).probabilities
    for column in synthetic.COLUMNS:
        words = net.card.vocabulary[column]
        for row, p in zip(some, seen[column], strict=True):
            best = float(p.max())
            assert float(p[words.index(row[column])]) == pytest.approx(best, abs=1e-3)


def test_the_evaluation_faces_card_says_what_they_cannot_show() -> None:
    text = (ASSETS / "synthetic-faces.md").read_text()
    assert "What they cannot show" in text and "CC BY 4.0" in text
    assert re.search(r"\| White \| \d+ \| \d+ \|", text)


def test_weights_that_were_tampered_with_are_refused(tmp_path: Path) -> None:
    for suffix in (".safetensors", ".json"):
        source = shipped_file("faces-balanced").with_suffix(suffix)
        (tmp_path / source.name).write_bytes(source.read_bytes())
    place = tmp_path / "faces-balanced.safetensors"
    data = bytearray(place.read_bytes())
    data[-1] ^= 1
    place.write_bytes(data)
    with pytest.raises(InputError, match="SHA-256"):
        load_generator(str(place))


def test_the_default_run_needs_nothing_but_the_package(tmp_path: Path) -> None:
    """One face a group in place of ten."""
    spec = make_spec({**read_spec("default"), "per_group": 1, "draws": 1})
    finished = run_audit(spec, tmp_path / "out")
    rows = finished.samples()
    assert dict(rows.arm.value_counts()) == {
        "pulse:faces-balanced": 7, "pulse:faces-skewed": 7, "bicubic": 7,
    }  # fmt: skip
    searched = rows[rows.arm != "bicubic"]
    assert searched.feasible.mean() > 0.7
    assert searched.sr_race.notna().all() and searched.label_race.nunique() == 7
    assert (finished.path / "report" / "index.html").is_file()
