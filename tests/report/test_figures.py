import re
import xml.etree.ElementTree as ElementTree
from itertools import combinations

import numpy as np
import pytest
import seaborn as sns
from matplotlib.text import Text
from numpy.testing import assert_allclose
from skimage.color import rgb2lab

from pulse_audit.report import drawings as drawing_module
from pulse_audit.report import figures
from pulse_audit.report.drawing import draw, style
from pulse_audit.report.drawings import COLUMN, PAGE, Drawings
from pulse_audit.report.forests import Forest, Point, forests, pages
from pulse_audit.report.plots import draw_forests
from pulse_audit.summary import EstimateRow, Summary

GROUPS = ("White", "Black", "cost $x$ & <b>")


def row(metric, value, low, high, group, arm="pulse:g"):
    return EstimateRow(
        arm=arm,
        condition="clean",
        scale=8,
        metric=metric,
        group_by="all" if group == "all" else "race",
        group=group,
        value=value,
        low=low,
        high=high,
        n_faces=10,
        n_draws=20,
        method="",
    )


def summary(groups=GROUPS):
    rows = [row("feasible_rate", 0.8, 0.7, 0.9, "all")]
    for index, group in enumerate(groups):
        share = 0.5 + index / (3 * len(groups))
        rows.append(row("feasible_rate", share, share - 0.2, share + 0.1, group))
        for name, value in (
            ("hr_lightness", 50.0),
            ("sr_lightness", 55.0),
            ("lightness_shift", 5.0),
            ("hr_ita", 10.0),
            ("sr_ita", 20.0),
        ):
            rows.append(row(name, value + index, value + index - 2, value + index + 3, group))
    return Summary(schema=3, estimates=rows, unavailable={}, findings=[])


def spans(axis):
    """Ends of the intervals drawn in an axis."""
    segments = [s for c in axis.collections for s in c.get_segments() if s[0][1] == s[1][1]]
    return np.array([[s[0][0], s[1][0]] for s in segments])


def test_intervals_are_drawn_where_the_estimates_put_them():
    figure = figures.feasibility(summary(), ["pulse:g"], "clean", 8, "race")
    rates = summary().select("feasible_rate", "pulse:g", "clean", 8, "race")
    expected = [[100 * r.low, 100 * r.high] for r in rates]
    assert_allclose(spans(figure.axes[0]), expected)


def test_skin_tone_shows_levels_and_the_paired_shift():
    figure = figures.skin_tone(summary(), ["pulse:g"], "clean", 8, "race")
    assert [a.get_xlabel() for a in figure.axes] == [
        "lightness, L*",
        "lightness shift, L*",
        "individual typology angle, °",
    ]
    assert_allclose(spans(figure.axes[1]), [[3, 8], [4, 9], [5, 10]])


def test_the_shift_of_interpolation_stands_beside_that_of_an_arm():
    floor = [row("lightness_shift", value, -1, 1, group, "bicubic")
             for group, value in zip(GROUPS, (0.2, None, -0.3), strict=True)]  # fmt: skip
    with_floor = summary().model_copy(update={"estimates": [*summary().estimates, *floor]})
    figure = figures.skin_tone(with_floor, ["pulse:g"], "clean", 8, "race")
    (marks,) = [line for line in figure.axes[1].lines if line.get_fillstyle() == "none"]
    assert marks.get_xdata().tolist() == [0.2, -0.3]
    assert [text.get_text() for text in figure.legends[0].texts][-1].startswith("the same for")
    without = figures.skin_tone(summary(), ["pulse:g"], "clean", 8, "race")
    assert len(without.legends[0].texts) == 3


def test_a_group_without_interval_is_drawn_as_a_point():
    rows = [row("feasible_rate", 0.5, None, None, "White"), row("feasible_rate", 1, 0.7, 1, "x")]
    one_face = Summary(schema=3, estimates=rows, unavailable={}, findings=[])
    figure = figures.feasibility(one_face, ["pulse:g"], "clean", 8, "race")
    assert_allclose(spans(figure.axes[0]), [[50, 50], [70, 100]])


def test_nothing_measured_gives_no_figure():
    empty = Summary(schema=3, estimates=[], unavailable={}, findings=[])
    assert figures.feasibility(empty, ["pulse:g"], "clean", 8, "race") is None
    assert figures.skin_tone(empty, ["pulse:g"], "clean", 8, "race") is None


def test_too_many_groups_give_no_figure():
    many = summary([f"g{i}" for i in range(figures.MAX_GROUPS + 1)])
    assert figures.feasibility(many, ["pulse:g"], "clean", 8, "race") is None


@pytest.fixture(scope="module")
def drawing():
    return draw(figures.skin_tone(summary(), ["pulse:g"], "clean", 8, "race"))


def test_equal_estimates_give_equal_bytes(drawing):
    again = draw(figures.skin_tone(summary(), ["pulse:g"], "clean", 8, "race"))
    assert again == drawing


def test_files_are_of_their_kind_and_undated(drawing):
    assert drawing.png.startswith(b"\x89PNG") and drawing.pdf.startswith(b"%PDF")
    assert b"CreationDate" not in drawing.pdf
    assert b"dc:date" not in drawing.svg
    assert b"matplotlib" not in drawing.png


def test_labels_are_text_and_not_mathematics_or_markup(drawing):
    tree = ElementTree.fromstring(drawing.svg)
    words = [e.text for e in tree.iter("{http://www.w3.org/2000/svg}text")]
    assert "cost $x$ & <b> (10)" in words


def test_the_page_s_figures_use_the_reader_s_font_and_the_dark_one_dark_colours(drawing):
    assert b"system-ui" in drawing.page and b"DejaVu" not in drawing.page
    assert figures.INK.encode() in drawing.page
    assert figures.INK.encode() not in drawing.page_dark
    ElementTree.fromstring(drawing.page_dark)


def apparent(groups=("A", "B"), unclassified=0.0):
    """Retention raw, corrected and of the originals, and a shift matrix."""
    rows = []
    for index, group in enumerate(groups):
        share = 0.4 + 0.2 * index
        raw = row("retention", share, share - 0.1, share + 0.1, group)
        rows.append(raw)
        rows.append(
            raw.model_copy(update={"correction": "original_baseline", "value": share + 0.3})
        )
        if index:
            rows.append(raw.model_copy(update={"correction": "corrected", "value": share + 0.2}))
        shares = [(1 - share) / (len(groups) - 1)] * len(groups)
        shares[index] = share - unclassified
        for target, value in zip((*groups, "not classified"), (*shares, unclassified), strict=True):
            cell = row("shift", value, 0.0, 1.0, group)
            rows.append(cell.model_copy(update={"to_group": target}))
    return Summary(schema=3, estimates=rows, unavailable={}, findings=[])


def test_retention_shows_raw_corrected_and_what_the_originals_score():
    figure = figures.retention(apparent(), ["pulse:g"], "clean", 8, "race")
    raw, corrected = (container[0].get_xdata() for container in figure.axes[0].containers)
    assert_allclose(raw, [40, 60])
    assert_allclose(corrected, [np.nan, 80])
    baselines = [
        c.get_segments()[0][0][0] for c in figure.axes[0].collections if len(c.get_segments()) == 1
    ]
    assert_allclose(sorted(baselines)[-2:], [70, 90])


def test_the_legend_names_what_is_drawn():
    def names(content):
        figure = figures.retention(content, ["pulse:g"], "clean", 8, "race")
        return [text.get_text() for text in figure.legends[0].get_texts()]

    assert names(apparent()) == ["as classified", "corrected", "originals"]
    raw = [row for row in apparent().estimates if row.correction == "raw"]
    only = apparent().model_copy(update={"estimates": raw})
    assert names(only) == ["as classified"]


def test_a_group_without_faces_has_no_line():
    rows = [
        row("retention", None, None, None, "not measured"),
        row("retention", 0.5, 0.3, 0.7, "x"),
    ]
    rows[0] = rows[0].model_copy(update={"n_faces": 0})
    content = Summary(schema=3, estimates=rows, unavailable={}, findings=[])
    figure = figures.retention(content, ["pulse:g"], "clean", 8, "race")
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["x (10)"]


def test_the_shift_matrix_has_a_cell_for_each_pair():
    figure = figures.shift_matrix(apparent(), ["pulse:g"], "clean", 8, "race")
    assert [t.get_text() for t in figure.axes[0].texts] == ["40", "60", "40", "60"]


def test_outputs_without_a_group_get_a_column_only_where_there_are_some():
    figure = figures.shift_matrix(apparent(unclassified=0.1), ["pulse:g"], "clean", 8, "race")
    labels = [t.get_text() for t in figure.axes[0].get_xticklabels()]
    assert labels == ["A", "B", "not classified"]


@pytest.mark.parametrize("make", [figures.retention, figures.shift_matrix])
def test_without_predictions_there_is_no_figure_of_them(make):
    assert make(summary(), ["pulse:g"], "clean", 8, "race") is None


def test_a_matrix_of_many_groups_is_left_to_the_table():
    many = apparent(tuple(f"g{i}" for i in range(14)))
    assert figures.shift_matrix(many, ["pulse:g"], "clean", 8, "race") is None


def sources(parts=("retained", "preference", "incapacity")):
    """Two groups whose draws fall into parts, and whom prior and evaluation set hold."""
    rows = []
    for group, shares in (("A", (0.7, 0.2, 0.1)), ("B", (0.2, 0.3, 0.5))):
        rows += [
            row(f"source_{part}", share, share, share, group)
            for part, share in zip(parts, shares, strict=True)
        ]
        for name, share in (("prior", 0.9), ("evaluation", 0.5)):
            made = row(f"{name}_share", share, share, share, group)
            rows.append(made.model_copy(update={"scale": 0, "condition": "all"}))
    return Summary(schema=3, estimates=rows, unavailable={}, findings=[])


def test_the_parts_of_a_group_are_stacked_to_all_its_draws():
    figure = figures.sources(sources(), ["pulse:g"], "clean", 8, "race")
    bars = figure.axes[0].patches
    assert [round(bar.get_width()) for bar in bars] == [70, 20, 20, 30, 10, 50]
    assert [round(bar.get_x()) for bar in bars] == [0, 0, 70, 20, 90, 50]
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["retained", "preference", "incapacity"]


def test_a_preference_below_0_shortens_chance():
    rows = [
        row(f"source_{part}", share, share, share, "A")
        for part, share in (
            ("retained", 0.5), ("chance", 0.2), ("preference", -0.1), ("incapacity", 0.4)
        )
    ]  # fmt: skip
    summary = Summary(schema=3, estimates=rows, unavailable={}, findings=[])
    figure = figures.sources(summary, ["pulse:g"], "clean", 8, "race")
    assert [round(bar.get_width()) for bar in figure.axes[0].patches] == [50, 10, 0, 40]


def test_compositions_stand_side_by_side():
    figure = figures.compositions(sources(), ["pulse:g"], "clean", 8, "race")
    drawn = {line.get_label(): list(line.get_xdata()) for line in figure.axes[0].lines}
    assert drawn == {"evaluation": [50, 50], "prior": [90, 90]}


@pytest.mark.parametrize("make", [figures.sources, figures.compositions])
def test_without_sources_there_is_no_figure_of_them(make):
    assert make(summary(), ["pulse:g"], "clean", 8, "race") is None


EVERY = {
    "feasibility": (figures.feasibility, summary),
    "skin tone": (figures.skin_tone, summary),
    "retention": (figures.retention, apparent),
    "shift matrix": (figures.shift_matrix, apparent),
    "sources": (figures.sources, sources),
    "compositions": (figures.compositions, sources),
}
LONG = ("Latino_Hispanic", "Southeast Asian", "a group whose name is far too long for any line")


def made(name, width):
    if name == "metrics":
        return draw_forests(forests(summary(LONG), ("clean", 8), "race"), width)
    make, estimates = EVERY[name]
    content = estimates() if name in ("sources", "compositions") else estimates(LONG)
    return make(content, ["pulse:g"], "clean", 8, "race", width)


@pytest.mark.parametrize("name", [*EVERY, "metrics"])
@pytest.mark.parametrize("width", [COLUMN, PAGE])
def test_a_figure_has_the_width_of_a_paper_and_type_of_seven_points(name, width):
    figure = made(name, width)
    drawing = draw(figure)
    tree = ElementTree.fromstring(drawing.svg)
    # Points in the SVG as in the PDF, and an embedded TrueType font, no Type 3.
    assert tree.get("width") == f"{72 * width:g}pt"
    assert f"[ 0 0 {72 * width:g} ".encode() in drawing.pdf
    assert b"/FontFile2" in drawing.pdf and b"/Type3" not in drawing.pdf
    styles = [e.get("style") for e in tree.iter("{http://www.w3.org/2000/svg}text")]
    sizes = [float(re.search(r"([\d.]+)px", style)[1]) for style in styles]
    assert len(sizes) > 3 and min(sizes) >= 7
    # Every text lies within the figure.
    with style():
        box = figure.bbox.padded(0.5)
        for text in figure.findobj(Text):
            if text.get_text() and text.get_visible() and text.axes is not None:
                extent = text.get_window_extent()
                assert box.containsx(extent.x0) and box.containsx(extent.x1), text
                assert box.containsy(extent.y0) and box.containsy(extent.y1), text


def test_titles_of_panels_side_by_side_do_not_meet():
    rows = [row.model_copy(update={"arm": "pulse:a-generator-with-a-long-name@256"})
            for row in summary().estimates]  # fmt: skip
    content = Summary(schema=3, estimates=rows, unavailable={}, findings=[])
    for width in (COLUMN, PAGE):
        figure = figures.skin_tone(content, [rows[0].arm], "clean", 8, "race", width)
        figure.draw_without_rendering()
        boxes = [axis.title.get_window_extent() for axis in figure.axes]
        boxes += [axis._left_title.get_window_extent() for axis in figure.axes]
        boxes = [box for box in boxes if box.width > 1]
        assert all(not a.overlaps(b) for a, b in combinations(boxes, 2))


def test_the_palette_is_seaborn_s_and_tells_series_apart_without_colour():
    assert list(drawing_module.PALETTE) == sns.color_palette("colorblind").as_hex()
    # In grey, originals and outputs differ by 15 L* or more, and by their markers besides.
    rgb = [[int(c[i : i + 2], 16) / 255 for i in (1, 3, 5)]
           for c in (figures.ORIGINAL, figures.OUTPUT)]  # fmt: skip
    lightness = rgb2lab(np.array(rgb)[None])[0, :, 0]
    assert abs(lightness[0] - lightness[1]) > 15


def forest(title, labels=("A", "B"), series=("one", "two")):
    """Every series at its own place of every line."""
    lines = [
        (
            label,
            [Point(i, 0.2 + 0.3 * i, 0.1 + 0.3 * i, 0.4 + 0.3 * i, "") for i in range(len(series))],
        )
        for label in labels
    ]
    return Forest(title, "", "", series, [(0, "0"), (0.5, "1"), (1, "2")], lines)


def test_a_forest_s_intervals_stand_where_its_points_are():
    figure = draw_forests([forest("first"), forest("second", labels=("B", "C"))])
    first, second = figure.axes
    ends = [tuple(line.get_xdata()) for line in first.lines if line.get_marker() == "None"]
    assert_allclose(sorted(set(ends)), [(0.1, 0.4), (0.4, 0.7)])
    # Panels share their lines: B is the second of both, and C has nothing in the first.
    places = {round(y) for line in second.lines for y in line.get_ydata()}
    assert places == {1, 2}
    assert [t.get_text() for t in first.get_yticklabels()] == ["A", "B", "C"]
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["one", "two"]


def test_panels_of_different_series_share_those_that_a_figure_can_tell_apart():
    first = forest("first", series=tuple("abcdef"))
    second = forest("second", series=tuple("abcdgh"))
    figure = draw_forests([first, second])
    assert [t.get_text() for t in figure.legends[0].get_texts()] == list("abcdef")
    points = [line for line in figure.axes[1].lines if line.get_marker() != "None"]
    assert len(points) == 4


@pytest.mark.parametrize(("width", "panels"), [(COLUMN, 2), (PAGE, 3)])
def test_panels_that_a_page_has_no_room_for_go_to_the_next_figure(width, panels):
    labels = [f"g{i}" for i in range(20)]
    plots = [forest(str(i), labels) for i in range(8)]
    split = pages(plots, width)
    assert [plot for part in split for plot in part] == plots
    assert {len(part) % panels for part in split[:-1]} == {0}
    assert all(draw_forests(part, width).get_figheight() < 9.5 for part in split)
    assert pages([], width) == []


def test_a_figure_drawn_before_is_not_drawn_again(tmp_path, monkeypatch):
    monkeypatch.setenv("PULSE_AUDIT_HOME", str(tmp_path))
    calls = []

    def make():
        calls.append(1)
        return figures.feasibility(summary(), ["pulse:g"], "clean", 8, "race")

    first = Drawings(summary(), "arms").drawing("feasible", make)
    assert Drawings(summary(), "arms").drawing("feasible", make) == first and len(calls) == 1
    # Other estimates, and other settings, are drawn.
    Drawings(summary(GROUPS[:2]), "arms").drawing("feasible", make)
    Drawings(summary(), "other arms").drawing("feasible", make)
    assert len(calls) == 3
    # That there is nothing to draw is kept, too.
    assert Drawings(summary()).drawing("none", lambda: None) is None
    assert Drawings(summary()).drawing("none", make) is None and len(calls) == 3


def test_the_cache_keeps_the_latest_drawings_and_may_be_missing(tmp_path, monkeypatch):
    monkeypatch.setenv("PULSE_AUDIT_HOME", str(tmp_path))
    monkeypatch.setattr(drawing_module, "KEPT", 2)
    figure = figures.feasibility(summary(), ["pulse:g"], "clean", 8, "race")
    for name in "abc":
        drawings = Drawings(summary(), name)
        drawings.drawing("feasible", lambda: figure)
        drawings.forget_older()
    assert len(list((tmp_path / "figures").iterdir())) == 2
    # A cache that is a file cannot be written.
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PULSE_AUDIT_HOME", str(tmp_path / "file"))
    drawings = Drawings(summary())
    assert drawings.drawing("feasible", lambda: figure).svg
    drawings.forget_older()
