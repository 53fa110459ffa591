"""The rating kit's page: nothing in it tells whose picture it is, and it works in a browser."""

import base64
import csv
import io
import json
import re
import time

import pytest
from PIL import Image

from pulse_audit import store
from pulse_audit.harness.ratings import KitOptions, draw_key, keep_ratings
from pulse_audit.report.kit import order_of, page_text, write_kit
from tests.report.browser import AXE, PROGRAM, Browser

EVIL = "</script><script>document.title = 'taken'</script>"
RACES = ("White", "Black", EVIL)
START = "document.getElementById('begin').click()"
TEXT = "document.getElementById('{}').textContent"


@pytest.fixture(scope="module")
def kit(write_run, tmp_path_factory):
    """Run, key and page of a kit for two raters."""
    run = write_run(tmp_path_factory.mktemp("run"), per_group=2, races=RACES)
    options = KitOptions(items=18, raters=("rater-1", "rater-2"))
    key = draw_key(run.manifest, run.samples(), options)
    return run, key, write_kit(run, key)


def test_the_page_holds_no_name_of_an_arm_a_face_a_file_or_a_label(kit):
    run, key, page = kit
    text = page.read_text()
    told = {*run.manifest.arms, "celeba", "dcgan", "bicubic", "pulse", "clean", "Male", "Female"}
    told |= {face.id for face in run.manifest.faces} | {run.manifest.fingerprint}
    told |= set(run.samples()["image"].dropna()) | {"images/", ".png"}
    assert [word for word in told if word in text] == []
    # words of the groups are answers of one task, and of no item
    content = json.loads(re.search(r'id="kit">(.*?)</script>', text, re.DOTALL)[1])
    for task in content["tasks"]:
        assert all(set(item) == {"id", "pictures"} for item in task["items"])
        answers = [choice["value"] for choice in task["choices"]]
        assert sorted(answers) == sorted(key.answers(task["name"]))
    ids = [item["id"] for task in content["tasks"] for item in task["items"]]
    assert ids == [item.id for item in key.items]


def test_pictures_are_those_of_the_key_and_hold_nothing_else(kit):
    run, key, page = kit
    content = json.loads(re.search(r'id="kit">(.*?)</script>', page.read_text(), re.DOTALL)[1])
    shown = {item["id"]: item["pictures"] for t in content["tasks"] for item in t["items"]}

    def pixels(source):
        with Image.open(source) as image:
            assert not image.info
            return image.convert("RGB").tobytes()

    for item in key.items:
        wanted = [
            store.output_path(arm, item.face, item.condition, item.scale, item.draw)
            for arm in item.arms
        ]
        if item.task == "choice":
            wanted.insert(1, store.original_path(item.face))
        found = [content["pictures"][place]["uri"] for place in shown[item.id]]
        for path, uri in zip(wanted or [store.original_path(item.face)], found, strict=True):
            data = base64.b64decode(uri.removeprefix("data:image/png;base64,"))
            assert pixels(run.path / path) == pixels(io.BytesIO(data))


def test_a_kit_of_photos_that_may_not_be_published_says_so(kit):
    run, key, _ = kit
    assert "It is a working document" in page_text(run, key)
    dataset = run.manifest.dataset.model_copy(update={"may_publish_images": False})
    private = store.Run(run.path, run.manifest.model_copy(update={"dataset": dataset}))
    assert "whose terms do not allow publishing them" in page_text(private, key)


@pytest.fixture
def page(kit, tmp_path):
    """The page, in a browser of its own: no rater has answered anything."""
    if PROGRAM is None:
        pytest.skip("Chromium is not installed")
    browser = Browser(str(tmp_path / "profile"))
    browser.open(kit[2].as_uri())
    yield browser
    browser.close()


def text(browser, name):
    return browser.value(TEXT.format(name))


def answer_all(browser, key):
    """Answer every question by keys, each task with one answer."""
    for task, pressed in (("mos", "4"), ("group", "0"), ("choice", "ArrowRight")):
        for _ in range(sum(item.task == task for item in key.items)):
            browser.press(pressed)


def test_a_rater_answers_by_keys_and_the_answers_are_read_back(page, kit, tmp_path):
    run, key, _ = kit
    page.value(START)
    assert text(page, "question") == "How do you rate the quality of this picture?"
    answer_all(page, key)
    assert text(page, "place") == f"{len(key.items)} of {len(key.items)} answered"
    assert not page.value("document.getElementById('end').hidden")
    path = tmp_path / "a.csv"
    saved = page.value("ratingAnswers()")
    path.write_text(saved, newline="")
    rows = list(csv.DictReader(io.StringIO(saved)))
    assert {(r["task"], r["answer"]) for r in rows} == {
        ("mos", "4"), ("group", "cannot tell"), ("choice", "right")
    }  # fmt: skip
    keep_ratings([path], run)
    assert len(run.read_ratings().answers) == len(key.items)
    (run.path / "ratings.json").unlink()


def test_answers_stay_where_the_page_is_closed_and_can_be_changed(page, kit):
    _, key, _ = kit
    page.value(START)
    for pressed in ("1", "5", "b", "2"):
        page.press(pressed)
    items = [item for item in key.items if item.task == "mos"]
    first, second = (items[place].id for place in order_of(key, "mos", "rater-1")[:2])
    # The browser stores answers a moment after they are given: closed and opened until it has.
    for _ in range(100):
        page.open("about:blank")
        page.open(kit[2].as_uri())
        if text(page, "state") != f"{len(key.items)} questions.":
            break
        time.sleep(0.1)
    assert text(page, "state") == f"2 of {len(key.items)} questions are answered."
    kept = list(csv.reader(io.StringIO(page.value("ratingAnswers()"))))
    assert {row[3]: row[4] for row in kept[1:]} == {first: "1", second: "2"}
    # another rater has none, and another order
    page.value("(() => { const s = document.getElementById('rater'); s.value = 'rater-2';"
               "s.dispatchEvent(new Event('change')); })()")  # fmt: skip
    assert text(page, "state") == f"{len(key.items)} questions."


def test_a_word_that_is_a_script_or_a_formula_stays_text(page, kit):
    _, key, _ = kit
    page.value(START)
    for _ in range(sum(item.task == "mos" for item in key.items)):
        page.press("3")
    assert EVIL in page.value("document.getElementById('choices').innerText")
    assert page.value("document.querySelectorAll('script').length") == 2
    assert page.value("document.title") == f"Rating of pictures of faces, {key.kit}"
    page.press("3")
    row = next(r for r in csv.reader(io.StringIO(page.value("ratingAnswers()"))) if r[2] == "group")
    assert row[4] == EVIL
    assert not any("script" in url for url in page.requests if not url.startswith("data:"))


def test_nothing_is_loaded_and_a_key_held_down_answers_once(page, kit):
    page.value(START)
    page.send("Input.dispatchKeyEvent", type="keyDown", key="2")
    for _ in range(3):
        page.send("Input.dispatchKeyEvent", type="keyDown", key="2", autoRepeat=True)
    assert text(page, "place").startswith("1 of")
    others = [u for u in page.requests if not u.startswith(("data:", "about:"))]
    assert others == [kit[2].as_uri()] and page.faults == []


@pytest.mark.skipif(AXE is None, reason="axe-core is not installed (PULSE_AUDIT_AXE: axe.min.js)")
@pytest.mark.parametrize("width", (1280, 390))
def test_axe_finds_no_fault_in_any_part(page, kit, width):
    _, key, _ = kit
    page.resize(width, mobile=width < 500)
    page.value(f"{AXE.read_text()}; 0")
    audit = (
        "axe.run(document, {resultTypes: ['violations']}).then(r => r.violations.map(v =>"
        "`${v.impact} ${v.id}: ${v.nodes[0].html.slice(0, 100)}`))"
    )
    found = page.value(audit)
    page.value(START)
    for task, pressed in (("mos", "4"), ("group", "0"), ("choice", "ArrowRight")):
        found += page.value(audit)
        assert page.value("document.documentElement.scrollWidth") <= width
        for _ in range(sum(item.task == task for item in key.items)):
            page.press(pressed)
    found += page.value(audit)
    assert found == []
