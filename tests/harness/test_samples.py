"""The self-audit: faces drawn from a generator's own prior, balanced by rejection."""

import json
from pathlib import Path

import pandas as pd
import pytest
import torch

from pulse_audit.datasets.images import load
from pulse_audit.datasets.samples import RECORD
from pulse_audit.generators.searchable import prior_images
from pulse_audit.harness import samples
from pulse_audit.harness.inputs import find_inputs
from pulse_audit.harness.run import run_audit
from pulse_audit.harness.spec import make_spec
from pulse_audit.models.attributes import load_attributes
from pulse_audit.models.generators import load_generator
from pulse_audit.models.shipped import shipped_generators
from pulse_audit.types import InputError

pytestmark = pytest.mark.skipif(not shipped_generators(), reason="no shipped generators here")

SPEC = {"dataset": "samples:faces-skewed", "per_group": 2, "seed": 3}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PULSE_AUDIT_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "samples"


@pytest.fixture
def draw(cache: Path):
    """Draw the faces of a specification, and return them with how they were drawn."""

    def drawn(progress=None, **settings):
        index = find_inputs(make_spec({**SPEC, **settings}), progress).index
        return index, index.samples

    return drawn


def test_samples_are_those_of_the_prior_and_labelled_by_the_model(draw):
    index, record = draw()
    generator, model = load_generator("faces-skewed"), load_attributes(None, "cpu")
    words = model.card.vocabulary["race"]
    assert len(index.faces) == len(record.seeds) == 14
    for face in index.faces[:5]:
        image = prior_images(generator, [record.seeds[face.id]], torch.device("cpu"))
        stored = torch.from_numpy(load(face.source)).permute(2, 0, 1)[None]
        assert (image - stored).abs().max() <= 0.5 / 255 + 1e-5
        likeliest = int(model(stored).probabilities["race"].argmax())
        assert words[likeliest] == face.labels["race"]
    assert index.card.labels_from == "model"
    assert index.card.crop == generator.card.crop
    assert index.card.may_publish_images


def test_rejection_keeps_the_first_of_each_group_and_counts_all(draw):
    index, record = draw()
    # The same samples, classified here without any rejection.
    generator, model = load_generator("faces-skewed"), load_attributes(None, "cpu")
    seeds = [samples.fingerprint(3, "samples", i) for i in range(record.drawn)]
    images = (prior_images(generator, seeds, torch.device("cpu")) * 255).round() / 255
    likeliest = model(images).probabilities["race"].argmax(1).tolist()
    words = [model.card.vocabulary["race"][i] for i in likeliest]
    for group in record.groups:
        assert group.drawn == words.count(group.group[0])
        assert group.kept == min(group.drawn, 2)
        first = [f"{i:06d}.png" for i, word in enumerate(words) if word == group.group[0]][:2]
        assert sorted(f.id for f in index.faces if [f.labels["race"]] == group.group) == first


def test_an_interrupted_drawing_ends_as_an_undisturbed_one(draw, cache: Path, monkeypatch):
    monkeypatch.setattr(samples, "MAX_BATCH", 5)

    def interrupt(done: int, total: int, restored: int) -> None:
        if done >= 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        draw(interrupt)
    (folder,) = cache.iterdir()
    assert not (folder / RECORD).exists()
    calls = []
    draw(lambda *counts: calls.append(counts))
    assert calls[0][0] == calls[0][2] == 10
    resumed = {path.name: path.read_bytes() for path in folder.iterdir()}
    for path in folder.iterdir():
        path.unlink()
    draw()
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == resumed
    # What is there is not drawn again.
    draw(lambda *counts: pytest.fail("drawn again"))


def test_rare_groups_have_fewer_faces_and_the_notes_say_so(draw, monkeypatch):
    monkeypatch.setattr(samples, "MOST_PER_FACE", 1)
    index, record = draw(per_group=3)
    assert record.drawn == record.most == 21
    short = [of.group[0] for of in record.groups if of.kept < 3]
    assert short
    assert "fewer than 3 faces" in index.notes[1]
    assert all(group in index.notes[1] for group in short)
    # The plan takes what there is.
    from pulse_audit.harness.plan import choose_faces

    chosen, skipped = choose_faces(make_spec({**SPEC, "per_group": 3}), index, [["race"]])
    assert len(chosen) == len(index.faces) < 21
    assert not skipped


def test_truncation_narrows_the_samples(draw):
    whole, half = (draw(truncation=t, group_by=[], per_group=30)[0] for t in (None, 0.5))
    assert whole.root != half.root
    assert "truncated to 0.5, which narrows the groups" in half.notes[0]

    def spread(index) -> float:
        images = torch.stack([torch.from_numpy(load(f.source)) for f in index.faces])
        return float(images.var(0).mean())

    assert spread(half) < 0.6 * spread(whole)


def test_groupings_of_the_models_card_and_intersections_are_balanced(draw):
    index, record = draw(group_by=["race_coarse,gender"], per_group=1)
    cells = {(f.labels["race_coarse"], f.labels["gender"]) for f in index.faces}
    assert len(cells) == len(index.faces) == len(record.groups) == 8


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"dataset": "samples:faces-balancd"}, "did you mean faces-balanced"),
        ({"dataset": "samples:nosuch.pkl"}, "nosuch.pkl: no such file"),
        ({"split": "train"}, "samples have no splits"),
        ({"attributes": "none"}, "groups are an attribute model's"),
        ({"group_by": ["rac"]}, "predicts no such label; did you mean race"),
        ({"dataset": "synthetic-faces", "truncation": 0.5}, "only --dataset samples:GENERATOR"),
        ({"dataset": "samples"}, "did you mean samples:GENERATOR"),
    ],
)
def test_wrong_uses_are_answered_in_one_line(draw, settings, line):
    with pytest.raises(InputError, match=line):
        draw(**settings)


def test_a_generator_without_mapping_is_not_truncated(draw, tiny_generator):
    with pytest.raises(InputError, match="no mapping network"):
        draw(dataset=f"samples:{tiny_generator}", truncation=0.7)


def test_a_damaged_record_costs_one_line(draw, cache: Path):
    draw()
    (folder,) = cache.iterdir()
    (folder / RECORD).write_text('{"generator": 3}')
    with pytest.raises(InputError, match="is damaged; remove"):
        draw()


def test_a_self_audit_runs_and_resumes(draw, tmp_path: Path):
    settings = {**SPEC, "generators": ["faces-skewed"], "draws": 1, "metrics": ["psnr"]}
    spec = make_spec({**settings, "per_group": 1, "search": "fast", "threads": 1})
    run = run_audit(spec, tmp_path / "run")
    manifest = json.loads((run.path / "manifest.json").read_text())
    record = manifest["dataset"]["samples"]
    assert set(record["seeds"]) == {face["id"] for face in manifest["faces"]}
    notes = " ".join(manifest["notes"])
    assert "pulse:faces-skewed searches on the generator that made these faces" in notes
    rows = run.samples()
    assert isinstance(rows, pd.DataFrame)
    # At the generator's own size the model sees what it labelled.
    assert (rows["hr_race"] == rows["label_race"]).all()
    page = (run.path / "report" / "index.html").read_text()
    assert "acceptance rate" in page
    assert run_audit(spec, tmp_path / "run").samples().equals(rows)
