"""The page in a real browser: filters, keys, folds, widths, dark mode, paper, and silence."""

import base64
import io

import pytest
from PIL import Image

from pulse_audit import store
from pulse_audit.report.html import render
from tests.report.browser import AXE, PROGRAM, Browser

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="Chromium is not installed")

EVIL = "<script>document.title = 'taken'</script>"
RACES = ("White", "Black", EVIL)
PLACE = "document.getElementById('v-place').textContent"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    made = Browser(str(tmp_path_factory.mktemp("profile")))
    yield made
    made.close()


@pytest.fixture(scope="module")
def address(write_run, tmp_path_factory):
    path = tmp_path_factory.mktemp("run")
    made = write_run(path, per_group=2, races=RACES, conditions=("clean", "gaussian:25"))
    made.write_manifest(notes=[EVIL], dataset=made.manifest.dataset.as_dict() | {"title": EVIL})
    return render(store.open_run(path)).as_uri()


@pytest.fixture
def viewer(browser, address):
    """The page with its viewer open."""
    browser.requests.clear()
    browser.faults.clear()
    browser.open("about:blank")
    browser.open(f"{address}#viewer")
    browser.wait(f"{PLACE} === '1 of 12'")
    browser.wait("document.querySelector('#v-card img.face') !== null")
    return browser


def choose(browser, name, value):
    browser.value(
        f"(() => {{ const s = document.getElementById('{name}'); s.value = {value!r};"
        "s.dispatchEvent(new Event('change', {bubbles: true})); })()"
    )


def test_the_viewer_filters_and_sorts(viewer):
    choose(viewer, "f-group", "Black")
    assert viewer.value(PLACE) == "1 of 4"
    choose(viewer, "f-condition", "gaussian:25 ×8")
    assert viewer.value(PLACE) == "1 of 2"
    choose(viewer, "f-arm", "bicubic")
    arms = "[...document.querySelectorAll('#v-card .shots:last-child .arm')].map(e => e.innerText)"
    viewer.wait(f'JSON.stringify({arms}) === \'["bicubic","bicubic"]\'')
    choose(viewer, "f-order", "PSNR")
    numbers = "[...document.querySelectorAll('#v-card dl')].map(e => +e.children[1].innerText)"
    assert viewer.value(f"{numbers}.length") == 2
    choose(viewer, "f-status", "infeasible")
    assert viewer.value(PLACE) == "no face matches"


def test_keys_walk_through_the_faces(viewer):
    for key, place in (("j", 2), ("ArrowRight", 3), ("k", 2), ("End", 12), ("j", 12), ("Home", 1)):
        viewer.press(key)
        assert viewer.value(PLACE) == f"{place} of 12"
    viewer.press("/")
    assert viewer.value("document.activeElement.id") == "f-group"


def test_a_label_that_is_a_script_stays_text(viewer):
    choose(viewer, "f-group", EVIL)
    assert viewer.value(PLACE) == "1 of 4"
    assert viewer.value("document.title") == f"Audit of face upsamplers: {EVIL}"
    assert EVIL in viewer.value("document.getElementById('v-card').innerText")
    assert viewer.value("document.body.querySelectorAll('script').length") == 1


def test_nothing_is_loaded_but_the_parts_and_nothing_is_complained_of(viewer):
    names = {url.rsplit("/", 1)[1] for url in viewer.requests if url.startswith("file:")}
    assert names == {"index.html#viewer", "part-000.js", "part-001.js"} or names == {
        "index.html", "part-000.js", "part-001.js"
    }  # fmt: skip
    others = [u for u in viewer.requests if not u.startswith(("file:", "data:", "about:"))]
    assert others == [] == viewer.faults


def test_a_phone_shows_the_page_without_scrolling_sideways(viewer):
    viewer.resize(390, 844, mobile=True)
    viewer.value("document.querySelectorAll('details').forEach(d => { d.open = true })")
    try:
        assert viewer.value("document.documentElement.scrollWidth") <= 390
    finally:
        viewer.send("Emulation.clearDeviceMetricsOverride")


def test_dark_mode_is_dark(viewer):
    viewer.prefer("dark")
    shot = viewer.send("Page.captureScreenshot", format="png")["data"]
    viewer.prefer(None)
    image = Image.open(io.BytesIO(base64.b64decode(shot))).convert("L")
    assert image.getpixel((2, 2)) < 40


def test_paper_has_every_fold_open(viewer):
    viewer.value("dispatchEvent(new Event('beforeprint'))")
    closed = "document.querySelectorAll('details:not([open])').length"
    assert viewer.value(closed) == 0
    viewer.value("dispatchEvent(new Event('afterprint'))")
    assert viewer.value(closed) > 3
    printed = base64.b64decode(viewer.send("Page.printToPDF")["data"])
    assert printed.startswith(b"%PDF")


@pytest.mark.skipif(AXE is None, reason="axe-core is not installed (PULSE_AUDIT_AXE: axe.min.js)")
@pytest.mark.parametrize("width", (1280, 390))
@pytest.mark.parametrize("scheme", ("light", "dark"))
def test_axe_finds_no_fault_of_accessibility(browser, write_run, tmp_path, scheme, width):
    made = write_run(tmp_path, per_group=2, races=("White", "Black"), conditions=("clean",))
    address = render(store.open_run(made.path)).as_uri()
    browser.prefer(scheme)
    browser.resize(width, mobile=width < 500)
    browser.open("about:blank")
    browser.open(f"{address}#viewer")
    browser.wait("document.querySelector('#v-card img.face') !== null")
    browser.value("document.querySelectorAll('details').forEach(d => d.open = true)")
    browser.value(f"{AXE.read_text()}; 0")
    found = browser.value(
        "axe.run(document, {resultTypes: ['violations']}).then(r => r.violations.map(v =>"
        "`${v.impact} ${v.id}: ${v.nodes.length}, ${v.nodes[0].html.slice(0, 100)}`))"
    )
    browser.prefer(None)
    browser.send("Emulation.clearDeviceMetricsOverride")
    assert found == []
