"""What raters said as tables: arms and groups in their places, as text, CSV and LaTeX."""

import csv
import io

import pytest

from pulse_audit.report.latex import to_latex
from pulse_audit.report.ratings import rating_tables
from pulse_audit.report.tables import to_csv
from pulse_audit.summary.schema import SubsetKey, Summary, make_row
from pulse_audit.types import Estimate

ARMS = ("pulse:g", "bicubic")


def estimate(value, low, high):
    return Estimate(value, low, high, 6, 6, "made up")


@pytest.fixture(scope="module")
def tables():
    one, two = (SubsetKey(arm, "clean", 8) for arm in ARMS)
    rows = [
        make_row(key, "mos", by, group, estimate(value, value - 0.5, value + 0.5), correction=kind)
        for key, own in ((one, 3.0), (two, 2.0))
        for by, group, more in (("all", "all", 0.0), ("race", "Black", 0.1), ("race", "White", 0.2))
        for kind, value in (("raw", own + more), ("original_baseline", 4.0 + more))
    ]
    for metric, found in (("mos", estimate(1.0, 0.8, 1.2)), ("mos_p", estimate(1e-9, None, None))):
        if metric == "mos_p":
            found = Estimate(1e-9, float("nan"), float("nan"), 6, 12, "made up")
        rows.append(
            make_row(one, metric, "all", "all", found, statistic="difference",
                     detail={"minus": "bicubic"})
        )  # fmt: skip
        rows.append(
            make_row(two, metric, "all", "all", found, statistic="difference",
                     detail={"minus": "original"})
        )  # fmt: skip
    rows += [
        make_row(one, "preference", by, group, estimate(0.7, 0.5, 0.9), detail={"over": "bicubic"})
        for by, group in (("all", "all"), ("race", "Black"))
    ]
    rows.append(make_row(one, "rater_alpha", "all", "all", estimate(0.4, 0.2, 0.6),
                         detail={"task": "group"}))  # fmt: skip
    summary = Summary(schema=3, estimates=rows, unavailable={}, findings=[])
    return dict(rating_tables(summary, "clean", 8, [["race"], ["gender"]]))


def texts(table):
    titles = [metric.title for metric in table.columns]
    return {
        row.label: {t: (c.value, c.interval) for t, c in zip(titles, row.cells, strict=True)}
        for row in table.rows
    }


def test_scores_stand_by_group_the_originals_first_and_the_whole_sample_last(tables):
    table = tables["mos", "race"]
    assert [m.title for m in table.columns] == ["original", *ARMS]
    assert [(row.label, row.whole) for row in table.rows] == [
        ("Black", False), ("White", False), ("all", True)
    ]  # fmt: skip
    assert texts(table)["White"]["bicubic"] == ("2.20", "[1.70, 2.70]")
    assert texts(table)["all"]["original"] == ("4.00", "[3.50, 4.50]")
    # a grouping that nobody was rated by has no table
    assert ("mos", "gender") not in tables


def test_arms_against_each_other(tables):
    differences = texts(tables["mos-differences",])
    assert differences["pulse:g"] == {
        "less original": ("–", ""),
        "less bicubic": ("1.00", "[0.80, 1.20]"),
    }
    ranks = texts(tables["mos-rank-tests",])
    assert ranks["bicubic"]["against original"] == ("< 0.0001", "")
    assert ranks["bicubic"]["against bicubic"] == ("–", "")
    assert "are not" in tables["mos-rank-tests",].caption
    chosen = texts(tables["preference", "race"])
    assert chosen["Black"] == {"pulse:g over bicubic": ("70.0", "[50.0, 90.0]")}
    assert texts(tables["agreement",]) == {"pulse:g": {"apparent groups": ("0.40", "[0.20, 0.60]")}}


def test_every_table_is_written_as_csv_and_latex(tables):
    for table in tables.values():
        rows = list(csv.reader(io.StringIO(to_csv(table))))
        assert len(rows) == len(table.rows) + 1 and len({len(row) for row in rows}) == 1
        assert to_latex(table).count(r"\begin{tabular}") == 1


def test_without_ratings_there_is_no_table():
    empty = Summary(schema=3, estimates=[], unavailable={}, findings=[])
    assert not list(rating_tables(empty, "clean", 8, [["race"]]))
