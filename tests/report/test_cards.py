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
    # FairFace's licence is one of Creative Commons; this run has no address of its data set.
    assert document["license"] == "https://creativecommons.org/licenses/by/4.0/"
    assert "url" not in document
    for name in ("dataCollection", "dataBiases", "dataLimitations", "personalSensitiveInformation"):
        assert document[f"rai:{name}"]


def test_croissant_is_valid(folder, run):
    croissant = pytest.importorskip("mlcroissant", reason="mlcroissant is not installed")
    dataset = run.manifest.dataset.model_copy(update={"url": "https://example.org/faces"})
    manifest = run.manifest.model_copy(update={"dataset": dataset})
    addressed = folder / "croissant-with-url.json"
    addressed.write_text(cards.croissant(manifest, (folder / "data/faces.csv").read_text()))
    for path in (folder / "croissant.json", addressed):
        read = croissant.Dataset(str(path))
        assert not read.metadata.ctx.issues.errors and not read.metadata.ctx.issues.warnings
    assert len(list(read.records("faces"))) == 9


def test_the_hub_s_own_library_reads_card_and_results(folder, summary):
    hub = pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")
    (path,) = (folder / ".eval_results").iterdir()
    entries = hub.parse_eval_result_entries(yaml.safe_load(path.read_text()))
    assert {entry.dataset_id for entry in entries} == {"OWNER/fairface"}
    card = hub.ModelCard((folder / "model-card.md").read_text())
    assert card.data.model_name == "pulse:celeba-dcgan32"
    assert {each.task_type for each in card.data.eval_results} == {"image-to-image"}


def test_the_address_of_the_data_set_and_its_licence_are_given(run):
    dataset = run.manifest.dataset.model_copy(update={"url": "https://example.org/faces"})
    manifest = run.manifest.model_copy(update={"dataset": dataset})
    document = json.loads(cards.croissant(manifest, cards.faces_csv(manifest)))
    assert document["url"] == document["prov:wasDerivedFrom"]["@id"] == "https://example.org/faces"
    for licence, address in (
        ("CC BY-NC-SA 4.0", "https://creativecommons.org/licenses/by-nc-sa/4.0/"),
        ("CC BY-NC-SA 4.0 (the set)", "CC BY-NC-SA 4.0 (the set)"),
        ("by agreement", "by agreement"),
    ):
        changed = dataset.model_copy(update={"licence": licence})
        manifest = run.manifest.model_copy(update={"dataset": changed})
        assert json.loads(cards.croissant(manifest, ""))["license"] == address


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
