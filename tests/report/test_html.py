import json
import re
import shutil
from html.parser import HTMLParser
from importlib import resources

import pytest

from pulse_audit import store
from pulse_audit.report import drawings
from pulse_audit.report.html import render, unbroken
from pulse_audit.summary import Summary
from pulse_audit.types import InputError

RACES = ("White", "Black", "Indian")
VOID = {"meta", "img", "source", "br", "link", "input", "hr"}
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-"


class Page(HTMLParser):
    """Tags with their attributes, the text, and whether tags nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", "".join(self.words))

    def all(self, name):
        return [attributes for tag, attributes in self.tags if tag == name]


@pytest.fixture(scope="module")
def run(write_run, tmp_path_factory):
    path = tmp_path_factory.mktemp("run")
    return write_run(path, per_group=3, races=RACES)


@pytest.fixture(scope="module")
def text(run):
    return render(run).read_text("utf-8")


@pytest.fixture(scope="module")
def page(text):
    return Page(text)


@pytest.fixture
def undrawn(monkeypatch):
    """Leave the drawing of figures to the tests that look at them."""
    blank = drawings.Drawing(b"<svg/>", b"png", b"pdf")
    monkeypatch.setattr(drawings.Drawings, "drawing", lambda self, stem, make: blank)


def test_every_tag_is_closed_and_every_id_is_one(page):
    assert page.open == []
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))
    references = {a["aria-labelledby"] for _, a in page.tags if "aria-labelledby" in a}
    assert references <= set(ids)
    assert {a["href"][1:] for a in page.all("a")} <= set(ids)


def test_the_page_loads_nothing_and_runs_only_its_own_script(page):
    policies = [m["content"] for m in page.all("meta") if "http-equiv" in m]
    assert len(policies) == 1 and policies[0].startswith(POLICY)
    assert policies[0].endswith("=' 'strict-dynamic'")
    assert page.all("script") == [{}]
    sources = [a.get("src") or a.get("srcset") for t, a in page.tags if t in ("img", "source")]
    assert sources and all(s.startswith("data:image/") for s in sources)
    assert not {"link", "iframe", "object"} & {tag for tag, _ in page.tags}
    assert not [name for _, a in page.tags for name in a if name.startswith("on")]


def test_pictures_have_words_and_headers_have_scopes(page):
    assert all(image.get("alt") for image in page.all("img"))
    assert {h.get("scope") for h in page.all("th")} <= {"col", "row", "colgroup", "rowgroup"}
    assert page.all("html")[0]["lang"] == "en"


def test_the_first_screen_says_what_was_found_and_what_it_cannot_say(page, run):
    stored = json.loads((run.path / "report" / "data" / "summary.json").read_text())
    for sentence in (finding["text"] for finding in stored["findings"]):
        assert sentence in page.text.replace("\N{NO-BREAK SPACE}", " ")
    assert "Upsampling never reveals who someone is." in page.text
    assert "apparent" in page.text
    assert page.text.index("Findings") < page.text.index("Provenance")


def test_every_group_is_shown_with_interval_and_sample(page, run):
    summary = Summary.model_validate_json(
        (run.path / "report" / "data" / "summary.json").read_text("utf-8")
    )
    for row in summary.select("feasible_rate", "pulse:celeba-dcgan32", "clean", 8, "race"):
        assert row.group in page.text
        assert f"[{100 * row.low:.1f}, {100 * row.high:.1f}]" in page.text


def test_what_is_missing_is_listed_with_its_reason(page):
    assert "weights not fetched: pulse-audit fetch lpips" in page.text
    assert "truncated JPEG" in page.text
    assert "no detector ran" in page.text


def test_provenance_holds_weights_data_licence_seed_and_versions(page):
    for word in ("ab" * 32, "cd" * 32, "CC BY 4.0", "Karkkainen and Joo 2021", "2.6.0", "search"):
        assert word in page.text


def test_the_method_says_which_latents_were_searched(page):
    said = "pulse:celeba-dcgan32: one for each layer, drawn from PULSE's Gaussian of independent"
    assert said in page.text


def test_pictures_are_embedded_and_say_what_became_of_the_draw(page):
    outputs = [i for i in page.all("img") if i["alt"].startswith("output of pulse")]
    assert len(outputs) == 4 * 2  # four faces, two draws
    assert all(i["src"].startswith("data:image/png") for i in outputs)


def test_tables_figures_and_data_lie_beside_the_page(run, text):
    folder = run.path / "report"
    names = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    for stem in ("arms_clean_x8", "pulse-celeba-dcgan32_clean_x8_race-gender"):
        assert {f"tables/{stem}.csv", f"tables/{stem}.tex"} <= names
    for kind in ("svg", "png", "pdf"):
        assert f"figures/skin-tone_clean_x8_race.{kind}" in names
    assert {"index.html", "data/estimates.csv", "data/summary.json"} <= names
    assert not [name for name in names if name.endswith(".tmp")]


def test_rendering_again_gives_the_same_bytes(run, text, tmp_path):
    render(store.open_run(run.path), tmp_path)
    first = {
        p.relative_to(run.path / "report"): p
        for p in (run.path / "report").rglob("*")
        if p.is_file()
    }
    again = {p.relative_to(tmp_path): p for p in tmp_path.rglob("*") if p.is_file()}
    assert first.keys() == again.keys()
    assert all(first[name].read_bytes() == again[name].read_bytes() for name in first)


def test_words_of_the_data_are_text_wherever_they_stand(write_run, tmp_path, undrawn):
    evil = "<script>alert(1)</script>"
    quote = '"><img src=x onerror=alert(1)>'
    made = write_run(tmp_path, per_group=1, draws=1, races=(evil, quote, "=cmd()"), images=True)
    manifest = made.manifest
    dataset = manifest.dataset.as_dict()
    made.write_manifest(
        notes=[evil],
        dataset=dataset | {"title": evil, "terms": quote, "may_publish_images": False},
        unavailable={evil: quote, "sr_face_found": evil},
        skipped=[{"id": evil, "labels": {"race": evil}, "reason": quote}],
    )
    text = render(store.open_run(tmp_path)).read_text("utf-8")
    page = Page(text)
    assert text.count("<script") == 1 == len(page.all("script"))
    assert "<" not in (tmp_path / "report/data/part-000.js").read_text()
    assert not [name for _, a in page.tags for name in a if name.startswith("on")]
    assert page.text.count(evil) > 5
    assert "'=cmd()" in (tmp_path / "report/tables/bicubic_clean_x8_race.csv").read_text()


def test_a_path_in_the_samples_cannot_show_what_lies_outside(write_run, tmp_path, undrawn):
    write_run(tmp_path / "run", per_group=1, draws=1, races=("A", "B"), images=True)
    kept = tmp_path / "run" / "images"
    shutil.move(kept, tmp_path / "elsewhere")
    kept.symlink_to(tmp_path / "elsewhere")
    page = Page(render(store.open_run(tmp_path / "run")).read_text("utf-8"))
    assert not [i for i in page.all("img") if not i["src"].startswith("data:image/svg")]
    assert "data:" not in (tmp_path / "run/report/data/part-001.js").read_text()


def restricted(write_run, path):
    made = write_run(path, per_group=1, draws=1, races=("A", "B"), images=True)
    made.manifest.dataset.may_publish_images = False
    made.write_manifest()
    return made


def test_faces_under_terms_come_with_a_visible_notice(write_run, tmp_path, undrawn):
    page = Page(render(restricted(write_run, tmp_path)).read_text("utf-8"))
    assert "Keep this file to yourself." in page.text
    assert [i for i in page.all("img") if i["src"].startswith("data:image/png")]


def test_the_public_edition_shows_no_face_under_terms(write_run, tmp_path, undrawn):
    made = restricted(write_run, tmp_path)
    render(made)
    page = Page(render(made, public=True).read_text("utf-8"))
    assert "Public edition." in page.text
    parts = sorted((tmp_path / "report" / "data").glob("part-*.js"))
    assert [part.name for part in parts] == ["part-000.js"]
    assert "data:image" not in parts[0].read_text()
    assert not [i for i in page.all("img") if i["src"].startswith("data:image/png")]
    # Nor is there a label or a row of a single face, of this report or of the one before.
    assert "Faces, one by one" not in page.text
    named = [
        path.relative_to(tmp_path / "report").as_posix()
        for path in (tmp_path / "report").rglob("*")
        if path.is_file() and b"val/1.jpg" in path.read_bytes()
    ]
    assert named == ["data/faces.csv"]
    assert (tmp_path / "report/data/faces.csv").read_text().startswith("face_id,sha256\n")
    assert not (tmp_path / "report/data/samples.parquet").exists()


def test_an_unfinished_run_says_so(write_run, tmp_path, undrawn):
    made = write_run(tmp_path, per_group=1, draws=1, races=("A", "B"), images=False)
    made.write_manifest(status="running")
    (tmp_path / "samples" / "u00001.parquet").unlink()
    page = Page(render(store.open_run(tmp_path)).read_text("utf-8"))
    assert "Unfinished run." in page.text
    wanted = "2 of 4 draws are missing (2 of bicubic); 0 of 2 faces have all of theirs, 0 in each"
    assert f"{wanted} group of race" in page.text


def test_a_run_without_any_result_renders(write_run, tmp_path, undrawn):
    made = write_run(tmp_path, per_group=1, draws=1, races=("A", "B"), images=False)
    made.write_manifest(status="planned")
    for shard in (tmp_path / "samples").glob("*.parquet"):
        shard.unlink()
    page = Page(render(store.open_run(tmp_path)).read_text("utf-8"))
    assert "No unit of work is finished yet." in page.text


def test_a_trial_run_says_that_gates_refuse_it(write_run, tmp_path, undrawn):
    made = write_run(tmp_path, per_group=1, draws=1, races=("A", "B"), images=False)
    made.write_manifest(spec={**made.manifest.spec.as_dict(), "limit": 2})
    page = Page(render(store.open_run(tmp_path)).read_text("utf-8"))
    assert "Trial run." in page.text


def test_each_grouping_and_condition_has_a_section(write_run, tmp_path, undrawn):
    conditions = ("clean", "gaussian:25")
    made = write_run(tmp_path, per_group=1, draws=1, races=("A", "B"), conditions=conditions)
    page = Page(render(made).read_text("utf-8"))
    sections = [a for a in page.all("details") if a.get("class") == "fold setting"]
    assert len(sections) == 2 * 2  # settings, groupings
    assert (tmp_path / "report/tables/bicubic_gaussian-25_x8_race.csv").is_file()


@pytest.mark.parametrize(
    ("entry", "value"),
    [("arms", {"x": []}), ("faces", ["a"]), ("skipped", [{}]), ("unavailable", [1])],
)
def test_a_damaged_manifest_is_refused_in_one_line(run, tmp_path, entry, value):
    content = {**run.manifest.as_dict(), entry: value}
    with pytest.raises(InputError, match=entry):
        render(store.Run(run.path, store.check_manifest(content)), tmp_path)
    assert not list(tmp_path.iterdir())


def test_numbers_stay_with_their_units():
    space = "\N{NO-BREAK SPACE}"
    assert unbroken("98 % [95, 99] of") == f"98{space}% [95,{space}99] of"
    assert unbroken("+3.1 [+2.0, +4.2] L* on") == f"+3.1 [+2.0,{space}+4.2]{space}L* on"


def luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_text_has_the_contrast_of_wcag_aa(scheme):
    style = (resources.files("pulse_audit.report") / "templates" / "style.css").read_text()
    block = re.findall(r":root \{(.*?)\}", style, re.S)[scheme]
    colour = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", block))
    for ground in ("paper", "warn"):
        for ink in ("ink", "muted", "accent", "bad"):
            high, low = sorted((luminance(colour[ink]), luminance(colour[ground])), reverse=True)
            assert (high + 0.05) / (low + 0.05) >= 4.5, (ink, ground)
