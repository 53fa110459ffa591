import datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pulse_audit.datasets.damage import undamaged

FAIRFACE = ("0-2", "3-9", "10-19", "20-29", "30-39", "40-49", "50-59", "60-69", "more than 70")
FFHQ_AGING = (
    "0-2", "3-6", "7-9", "10-14", "15-19", "20-29", "30-39", "40-49", "50-69", "70-120",
)  # fmt: skip


@pytest.mark.parametrize(
    ("found", "meant"),
    [
        ("03-Sep", "3-9"),
        ("3-Sep", "3-9"),
        ("09-Mar", "3-9"),
        ("9-Mar", "3-9"),
        ("Mar-09", "3-9"),
        ("Mar-9", "3-9"),
        ("Sep-03", "3-9"),
        ("2024-03-09", "3-9"),
        ("2024-09-03", "3-9"),
        ("2024-03-09 00:00:00", "3-9"),
        ("3/9/2024", "3-9"),
        ("9/3/24", "3-9"),
        ("9-Mar-24", "3-9"),
        ("Oct-19", "10-19"),
        ("19-Oct", "10-19"),
        ("oct-19", "10-19"),
        ("2019-10-01", "10-19"),
        ("2024-10-19", "10-19"),
        ("10/19/2024", "10-19"),
        ("10/1/2019", "10-19"),
        ("Oct-2019", "10-19"),
    ],
)
def test_dates_that_were_fairface_ages(found: str, meant: str) -> None:
    assert undamaged(found, FAIRFACE) == meant


@pytest.mark.parametrize(
    ("found", "meant"),
    [("06-Mar", "3-6"), ("3-Jun", "3-6"), ("Jul-09", "7-9"), ("Oct-14", "10-14")],
)
def test_the_vocabulary_decides(found: str, meant: str) -> None:
    assert undamaged(found, FFHQ_AGING) == meant
    assert undamaged(found, FAIRFACE) is None


@pytest.mark.parametrize(
    "text",
    ["3-9 ", "", "20-29", "Sep", "03-Foo", "31-Dec", "2024-13-40", "45178", "<script>", "3–9"],
)
def test_what_is_no_damage_stays(text: str) -> None:
    assert undamaged(text, FAIRFACE) is None


def test_two_fitting_words_are_not_guessed_between() -> None:
    assert undamaged("03-Sep", ("3-9", "9-3")) is None


@given(st.dates(datetime.date(2000, 1, 1), datetime.date(2039, 12, 31)))
def test_only_words_that_name_the_date_are_restored(date: datetime.date) -> None:
    word = undamaged(date.isoformat(), FAIRFACE)
    if word is not None:
        first, second = (int(part) for part in word.split("-"))
        assert {first, second} <= {date.month, date.day, date.year % 100}


@settings(deadline=None)
@given(st.text("0123456789-/. :SeptOcMar\n", max_size=20))
def test_any_text_is_survived(text: str) -> None:
    assert undamaged(text, FAIRFACE) in (None, "3-9", "10-19")
