import csv
import io

import pytest

from pulse_audit.metrics.registry import BY_NAME
from pulse_audit.report.tables import (
    TableCell,
    arm_table,
    estimates_csv,
    group_table,
    neutralised,
    paper_table,
    to_csv,
)
from pulse_audit.summary import EstimateRow, Summary


def row(metric="feasible_rate", value=0.9, low=0.8, high=0.95, group="Black", **changes):
    return EstimateRow(
        **{
            "arm": "pulse:g_1",
            "condition": "clean",
            "scale": 8,
            "metric": metric,
            "group_by": "all" if group == "all" else "race",
            "group": group,
            "value": value,
            "low": low,
            "high": high,
            "n_faces": 10,
            "n_draws": 20,
            "method": "Wilson",
            **changes,
        }
    )


def summary(*rows):
    return Summary(schema=3, estimates=list(rows), unavailable={}, findings=[])


def table(*rows):
    return group_table(summary(*rows), "pulse:g_1", "clean", 8, "race")


def lines(text):
    return list(csv.reader(io.StringIO(text)))


def test_shares_are_shown_in_per_cent_with_their_interval():
    cell = table(row()).rows[0].cells[0]
    assert (cell.value, cell.interval) == ("90.0", "[80.0, 95.0]")


def test_groups_keep_their_order_and_the_whole_sample_comes_last():
    rows = table(row(group="all"), row(group="White"), row(group="Black")).rows
    assert [r.label for r in rows] == ["White", "Black", "all"]
    assert [r.whole for r in rows] == [False, False, True]


def test_a_table_has_a_column_for_each_measured_metric_in_reading_order():
    rows = [row("ssim"), row("feasible_rate"), row("psnr"), row("hr_ita"), row("hue_shift", None)]
    assert [m.name for m in table(*rows).columns] == ["feasible_rate", "psnr", "ssim"]


def test_error_rates_have_a_column_only_where_there_are_errors():
    none = table(row(), row("error_rate", 0.0, 0.0, 0.1))
    some = table(row(), row("error_rate", 0.1, 0.0, 0.3))
    assert [m.name for m in none.columns] == ["feasible_rate"]
    assert [m.name for m in some.columns] == ["feasible_rate", "error_rate"]


def test_retention_has_the_no_face_rate_beside_it_even_where_it_is_zero_or_not_measured():
    rows = [row(), row("retention"), row("no_face_rate", 0.0, 0.0, 0.1)]
    zero, unmeasured = table(*rows), table(*rows[:2])
    for shown in (zero, unmeasured):
        assert [m.name for m in shown.columns] == ["retention", "no_face_rate", "feasible_rate"]
    assert [t.rows[0].cells[1].value for t in (zero, unmeasured)] == ["0.0", "–"]
    assert lines(to_csv(zero))[0][3:9:3] == ["retention", "no_face_rate"]


def test_a_table_says_which_attribute_retention_compares_where_it_is_not_the_grouping():
    race, both = {"attribute": "race"}, {"attribute": "race,gender"}
    assert table(row("retention", detail=race)).caption.endswith("by race")
    assert table(row("retention", detail=both)).caption.endswith("; retention of race × gender")
    whole = arm_table(summary(row("retention", group="all", detail=race)), "clean", 8)
    assert whole.caption.endswith("whole sample; retention of race")


def test_arms_are_compared_over_the_whole_sample():
    rows = [row(group="all"), row(group="all", arm="bicubic", value=1.0), row()]
    compared = arm_table(summary(*rows), "clean", 8)
    assert [(r.label, r.cells[0].value) for r in compared.rows] == [
        ("pulse:g_1", "90.0"),
        ("bicubic", "100.0"),
    ]


def test_corrected_and_shift_matrix_rows_do_not_mix_with_raw_ones():
    rows = [row(), row(correction="corrected", value=0.1), row(to_group="White", value=0.2)]
    assert [c.value for r in table(*rows).rows for c in r.cells] == ["90.0"]


@pytest.mark.parametrize(
    ("value", "low", "high", "shown", "interval"),
    [
        (-3.14, -5.0, -1.0, "−3.1", "[−5.0, −1.0]"),
        (-0.01, -1.0, 1.0, "0.0", "[−1.0, 1.0]"),
        (2.0, None, None, "2.0", ""),
        (2.0, 2.0, 2.0, "2.0", ""),
        (None, None, None, "–", ""),
    ],
)
def test_numbers_are_written_with_a_true_minus_and_no_empty_interval(
    value, low, high, shown, interval
):
    cell = TableCell(BY_NAME["lightness_shift"], row("lightness_shift", value, low, high))
    assert (cell.value, cell.interval) == (shown, interval)


def test_a_missing_cell_says_that_it_was_not_measured():
    cell = TableCell(BY_NAME["psnr"], None)
    assert (cell.value, cell.interval, cell.reason) == ("–", "", "not measured")


def test_csv_holds_stored_units_and_the_ends_of_intervals():
    header, line = lines(to_csv(table(row(), row("psnr", 20.5, None, None))))
    assert header[:6] == [
        "race", "faces", "draws", "feasible_rate", "feasible_rate_low", "feasible_rate_high"
    ]  # fmt: skip
    assert line == ["Black", "10", "20", "0.9", "0.8", "0.95", "20.5", "", ""]


@pytest.mark.parametrize("text", ["=cmd|' /C calc'!A0", "+1", "-1", "@SUM(A1)", "\t=x", "\r\n-x"])
def test_no_label_becomes_a_spreadsheet_formula(text):
    written = lines(to_csv(table(row(group=text))))
    assert written[1][0] == neutralised(text) == f"'{text.strip()}"


def test_negative_numbers_stay_numbers_in_csv():
    written = lines(estimates_csv(summary(row("lightness_shift", -1.5, -2.0, -1.0))))
    named = dict(zip(*written, strict=True))
    assert (named["value"], named["low"], named["to_group"]) == ("-1.5", "-2.0", "")


def test_every_estimate_is_a_line_of_the_csv():
    written = lines(estimates_csv(summary(row(), row("psnr"), row(group='a,b\n"c"'))))
    assert len(written) == 4
    assert written[3][5] == 'a,b "c"'


def test_the_table_of_a_paper_has_at_most_six_columns_and_the_no_face_rate_beside_retention():
    metrics = ("retention", "no_face_rate", "feasible_rate", "lightness_shift", "psnr", "ssim")
    rows = [row(metric, group=group) for metric in metrics for group in ("White", "Black")]
    corrected = row("retention", 0.5, 0.3, 0.7, group="White", correction="corrected")
    (made,) = paper_table(summary(*rows, corrected), ["pulse:g_1"], "clean", 8, "race")
    names = [m.title for m in made.columns]
    assert names == ["Retained", "Corrected", "No face", "Feasible"]
    assert [(c.value, c.interval) for c in made.rows[0].cells][:2] == [
        ("90", "[80, 95]"),
        ("50", "[30, 70]"),
    ]
    assert made.rows[1].cells[1].value == "–"


def test_the_table_of_a_paper_counts_the_faces_of_its_own_numbers():
    other = row("steps", group="White").model_copy(update={"n_faces": 99})
    (made,) = paper_table(summary(row("psnr"), other), ["pulse:g_1"], "clean", 8, "race")
    assert [(r.label, r.n_faces) for r in made.rows] == [("Black", 10)]
