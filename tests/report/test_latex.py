import re
import shutil
import subprocess

import pytest

from pulse_audit.report.latex import escape_latex, paper_latex, to_latex
from pulse_audit.report.tables import group_table, paper_table
from pulse_audit.summary import EstimateRow, Summary

RACES = (
    "White", "Black", "Latino_Hispanic", "East Asian", "Southeast Asian", "Indian",
    "Middle Eastern", "x \\\\ \\input{/etc/passwd} & 50 % $y$ <中> {~^#_|\"}",
)  # fmt: skip
METRICS = ("retention", "no_face_rate", "feasible_rate", "lightness_shift", "psnr", "ssim")
PAGE = r"""\documentclass[twocolumn,10pt,letterpaper]{article}
\usepackage[utf8]{inputenc}\usepackage[T1]{fontenc}\usepackage{booktabs,siunitx,rotating}
\usepackage[textwidth=6.875in,textheight=8.875in,columnsep=0.3125in]{geometry}
\begin{document}
\begin{table}\centering\input{paper.tex}\end{table}
\begin{sidewaystable*}\centering\input{full.tex}\end{sidewaystable*}
\end{document}"""


def row(metric, group, arm="pulse:g_1", value=0.9, condition="clean"):
    return EstimateRow(
        arm=arm,
        condition=condition,
        scale=8,
        metric=metric,
        group_by="all" if group == "all" else "race",
        group=group,
        value=value,
        low=None if value is None else value - 0.25,
        high=None if value is None else value + 0.1,
        n_faces=100,
        n_draws=200,
        method="Wilson",
    )


def summary(groups=RACES, **changes):
    rows = [
        row(
            metric,
            group,
            arm,
            **({"value": -2.9} if metric == "lightness_shift" else {}),
            **changes,
        )
        for arm in ("pulse:g_1", "pulse:another one")
        for group in (*groups, "all")
        for metric in METRICS
    ]
    return Summary(schema=3, estimates=rows, unavailable={}, findings=[])


def both(made):
    arms = list(dict.fromkeys(r.arm for r in made.estimates))
    condition = made.estimates[0].condition
    return (
        paper_latex(paper_table(made, arms, condition, 8, "race")),
        to_latex(group_table(made, arms[0], condition, 8, "race")),
    )


def test_every_special_character_is_escaped():
    assert escape_latex(r"50% & $x_1^2$ #~{\a}") == (
        r"50\% \& \$x\_1\textasciicircum{}2\$ \#\textasciitilde{}\{\textbackslash{}a\}"
    )
    assert escape_latex('<é|中\x07">') == (
        r"\textless{}é\textbar{}U+4E2D\textquotedbl{}\textgreater{}"
    )


@pytest.mark.parametrize("which", [0, 1])
def test_rows_have_as_many_cells_as_columns(which):
    text = both(summary())[which]
    (spec,) = set(re.findall(r"\\begin{tabular}{@{}(.*)@{}}", text)) if which == 0 else {""}
    body = [line for line in text.splitlines() if " & " in line]
    counts = {len(re.findall(r"(?<!\\) & ", line)) for line in body}
    assert counts == ({5} if which == 0 else {8, 1})
    assert not which or text.count(r"\begin{tabular}") == 2
    assert which or spec.startswith("lS")
    assert text.count("{") == text.count("}")
    for rule in ("toprule", "bottomrule"):
        assert text.count(rf"\{rule}") == 1 + which


@pytest.mark.parametrize("which", [0, 1])
def test_a_hostile_label_cannot_leave_its_cell_nor_a_hostile_setting_its_comment(which):
    text = both(summary(condition="clean\n\\input{x}"))[which]
    outside = [line for line in text.splitlines() if not line.startswith("%")]
    assert not any(r"\input" in line for line in outside)
    assert any("etc/passwd" in line for line in outside)


def test_an_interval_is_small_behind_its_number_and_a_missing_value_a_dash():
    made = summary(groups=("White",))
    gone = row("psnr", "White", value=None)
    rows = [gone if (r.metric, r.group) == ("psnr", "White") else r for r in made.estimates]
    text = both(made)[0]
    assert r"White & 100 & 90{\tiny[65,100]}" in text
    text = both(Summary(schema=3, estimates=rows[-6:] + [gone], unavailable={}, findings=[]))[0]
    assert "White & 100 & {--}" in text


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="LaTeX is not installed")
def test_tables_compile_and_fit_a_column_and_a_landscape_page(tmp_path):
    found = subprocess.run(["kpsewhich", "siunitx.sty", "rotating.sty"], capture_output=True)
    if len(found.stdout.split()) < 2:
        pytest.skip("the LaTeX packages siunitx and rotating are not installed")
    for groups in (RACES[:7], (*RACES[:6], 'é 50 % $y$ <中> {~^#_|"}')):
        paper, full = both(summary(groups))
        (tmp_path / "paper.tex").write_text(paper, "utf-8")
        (tmp_path / "full.tex").write_text(full, "utf-8")
        (tmp_path / "page.tex").write_text(PAGE, "utf-8")
        command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "page.tex"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=120)
        log = done.stdout.decode("utf-8", "replace")
        assert done.returncode == 0, log[-2000:]
        assert groups != RACES[:7] or "Overfull" not in log, log
