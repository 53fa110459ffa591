"""The built documentation in a real browser, opened from disk; needs `make docs` and Chromium."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.report.browser import PROGRAM, Browser

SITE = Path(__file__).resolve().parents[1] / "site"
PAGES = sorted(p for p in SITE.rglob("*.html") if "files" not in p.relative_to(SITE).parts)

pytestmark = [
    pytest.mark.skipif(not PAGES, reason="make docs builds the site"),
    pytest.mark.skipif(PROGRAM is None, reason="needs Chromium"),
]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    browser = Browser(str(tmp_path_factory.mktemp("profile")))
    yield browser
    browser.close()


def test_no_page_asks_a_network_complains_or_is_wider_than_a_phone(browser: Browser) -> None:
    browser.resize(390)
    for page in PAGES:
        browser.open(page.as_uri())
        assert browser.value("document.documentElement.scrollWidth <= innerWidth"), page.name
    local = ("file:", "data:", "blob:", "about:")
    assert not [url for url in browser.requests if not url.startswith(local)]
    assert not browser.faults


def test_the_search_works_from_disk(browser: Browser) -> None:
    browser.resize(1280)
    browser.open((SITE / "index.html").as_uri())
    x, y = browser.value(
        "(r => [r.x + 40, r.y + 10])"
        "(document.querySelector('.md-search__input').getBoundingClientRect())"
    )
    for kind in ("mousePressed", "mouseReleased"):
        click = {"type": kind, "x": x, "y": y, "button": "left", "clickCount": 1}
        browser.send("Input.dispatchMouseEvent", **click)
    browser.wait("typeof __index === 'object'")
    for key in "retention":
        browser.send("Input.dispatchKeyEvent", type="keyDown", text=key, key=key)
        browser.send("Input.dispatchKeyEvent", type="keyUp", key=key)
    browser.wait("document.querySelectorAll('.md-search-result__item').length > 3")
    assert not browser.faults
