import csv
import hashlib
import io
import json

import pytest
import yaml

from pulse_audit.report import cards
from pulse_audit.report.beside import write_beside
from pulse_audit.summary import summarise_run

HOSTILE = "<script>alert(1)</script> | `x`"


@pytest.fixture(scope="module")
def run(write_run, tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("run"), races=("White", "Black", HOSTILE))


@pytest.fixture(scope="module")
def summary(run):
    return summarise_run(run)


@pytest.fixture(scope="module")
def folder(run, summary, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    write_beside(folder, run.manifest, run.samples(), summary)
    return folder


def front_matter(text):
    return yaml.safe_load(text.split("---\n")[1])


def test_the_model_card_gives_the_results_of_arms_on_trial_as_model_index(folder, summary):
    (model,) = front_matter((folder / "model-card.md").read_text())["model-index"]
    assert model["name"] == "pulse:celeba-dcgan32"
    (result,) = model["results"]
    assert result["task"]["type"] == "image-to-image"
    assert result["dataset"] == {
        "name": "FairFace, clean, 8x", "type": "fairface", "config": "clean-x8", "split": "val",
    }  # fmt: skip
    values = {m["type"]: m["value"] for m in result["metrics"]}
    (row,) = summary.select("feasible_rate", "pulse:celeba-dcgan32", "clean", 8)
    assert values["feasible_rate"] == row.value
    assert {"psnr", "ssim", "lightness_shift"} <= set(values)


def test_eval_results_have_the_fields_of_the_hub(folder, summary):
    (path,) = (folder / ".eval_results").iterdir()
    for entry in yaml.safe_load(path.read_text()):
        assert set(entry["dataset"]) == {"id", "task_id"}
        assert entry["dataset"]["id"] == "OWNER/fairface"
        assert isinstance(entry["value"], float)
        assert entry["date"] == "2026-01-01"
        assert "95 % interval" in entry["notes"]
    assert path.read_text().startswith("# The Hub reads results of data sets that are registered")


def test_croissant_describes_the_list_of_faces(folder, run):
    document = json.loads((folder / "croissant.json").read_text())
    assert document["conformsTo"] == [
        "http://mlcommons.org/croissant/1.1",
        "http://mlcommons.org/croissant/RAI/1.0",
    ]
    (file,) = document["distribution"]
    data = (folder / file["contentUrl"]).read_bytes()
    assert file["sha256"] == hashlib.sha256(data).hexdigest()
    header, *lines = csv.reader(io.StringIO(data.decode()))
    assert [f["name"] for f in document["recordSet"][0]["field"]] == header
    assert [line[0] for line in lines] == [face.id for face in run.manifest.faces]
    for name in ("dataCollection", "dataBiases", "dataLimitations", "personalSensitiveInformation"):
        assert document[f"rai:{name}"]


def test_croissant_is_valid(folder):
    croissant = pytest.importorskip("mlcroissant", reason="mlcroissant is not installed")
    read = croissant.Dataset(str(folder / "croissant.json"))
    assert len(list(read.records("faces"))) == 9


def test_labels_that_may_not_be_published_are_left_out(run):
    text = cards.faces_csv(run.manifest, labelled=False)
    assert text.splitlines()[0] == "face_id,sha256"
    document = json.loads(cards.croissant(run.manifest, text, labelled=False))
    assert [f["name"] for f in document["recordSet"][0]["field"]] == ["face_id", "sha256"]


def test_the_bias_examination_has_the_headings_and_says_what_it_is(folder):
    text = (folder / "bias-examination.md").read_text()
    assert "**This file is evidence, not conformity.**" in text
    for letter in "abcdefgh":
        assert f"### 10(2)({letter}) " in text
    for heading in ("Annex IV", "IEEE 7003-2024", "### Bias profile", "### Data representation"):
        assert heading in text
    assert "| White | 3 |" in text
    assert "unavailable, because" in text


def test_a_hostile_label_is_text_everywhere(folder):
    for name in ("model-card.md", "bias-examination.md", "methods.md"):
        text = (folder / name).read_text()
        assert "<script" not in text
        assert "&lt;script&gt;" in text


def test_tables_of_a_paper_lie_beside_the_others(folder):
    names = {path.name for path in (folder / "tables").iterdir()}
    assert {"paper_clean_x8_race.tex", "paper_clean_x8_race_1.csv"} <= names
