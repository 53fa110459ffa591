"""Tables as LaTeX: one for a column of a paper, and the full ones for a landscape page."""

from __future__ import annotations

from collections.abc import Sequence

from pulse_audit.metrics.definition import MetricDefinition
from pulse_audit.report.tables import MINUS, NONE, EstimateTable, TableCell, arrow

#: Groups or arms side by side on a landscape page.
MOST_LANDSCAPE = 8
#: Last code point of Latin Extended-A, which the encoding T1 has.
LAST_LETTER = 0x17F

#: Characters that LaTeX reads as commands, and how they are written.
LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "×": r"$\times$",
    "°": r"$^\circ$",
    "²": r"$^2$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "→": r"$\to$",
    MINUS: "$-$",
    NONE: "--",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    **{c: rf"\{c}" for c in "&%$#_{}"},
}


def paper_latex(tables: Sequence[EstimateTable]) -> str:
    r"""Write `paper_table` for one column of a two-column page: one ``tabular``, a block an arm.

    Numbers are aligned by siunitx, intervals are small, in brackets behind them.
    """
    columns = tables[0].columns
    cells = [cell for table in tables for row in table.rows for cell in row.cells]
    faces = max(row.n_faces for table in tables for row in table.rows)
    spec = ["l", f"S[table-format={len(str(faces))}.0]"]
    for number in range(len(columns)):
        column = cells[number :: len(columns)]
        longest = max((_bracket(cell) for cell in column), key=len)
        spec.append(f"S[table-format={_format(column)},table-space-text-post={{{longest}}}]")
    lines = [
        r"% needs \usepackage{booktabs,siunitx} (siunitx 3); brackets hold 95 % intervals",
        *(f"% {' '.join(table.caption.split())}" for table in tables),
        r"\begingroup\footnotesize\setlength{\tabcolsep}{1.5pt}"
        r"\sisetup{table-align-text-after=false,table-number-alignment=right}",
        rf"\begin{{tabular}}{{@{{}}{''.join(spec)}@{{}}}}",
        r"\toprule",
        " & ".join([escape_latex(tables[0].head), "{$n$}", *map(_heading, columns)]) + r" \\",
    ]
    for table in tables:
        arm = escape_latex(table.caption.split(", ")[0])
        lines += [
            r"\midrule",
            rf"\multicolumn{{{len(columns) + 2}}}{{@{{}}l}}{{\textit{{{arm}}}}} \\",
        ]
        for row in table.rows:
            numbers = [
                "{--}"
                if cell.value == NONE
                else cell.value.replace(MINUS, "-") + (_bracket(cell) if cell.interval else "")
                for cell in row.cells
            ]
            line = [escape_latex(row.label.replace("_", " ")), str(row.n_faces), *numbers]
            lines.append(" & ".join(line) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}\endgroup"]) + "\n"


def _heading(metric: MetricDefinition) -> str:
    """Heading of a column, its unit below."""
    unit = escape_latex(metric.unit) if metric.unit else r"\strut"
    return rf"{{\scriptsize\shortstack{{{escape_latex(metric.title)} \\ {unit}}}}}"


def _bracket(cell: TableCell) -> str:
    """Interval of a cell behind its number, small."""
    interval = escape_latex(cell.interval).replace(", ", ",")
    return rf"{{\tiny{interval}}}" if interval else ""


def _format(cells: Sequence[TableCell]) -> str:
    """Digits before and after the point, as siunitx wants them."""
    values = [cell.value.replace(MINUS, "-") for cell in cells if cell.value != NONE] or ["0"]
    before = max(len(value.partition(".")[0].removeprefix("-")) for value in values)
    sign = "-" if any(value.startswith("-") for value in values) else ""
    return f"{sign}{before}.{len(values[0].partition('.')[2])}"


def to_latex(table: EstimateTable) -> str:
    r"""Write a full table for a landscape page: a row per metric, a column per group or arm.

    At most `MOST_LANDSCAPE` groups stand side by side; further ones follow in another ``tabular``.
    """
    parts = [
        table.rows[i : i + MOST_LANDSCAPE]
        for i in range(0, max(len(table.rows), 1), MOST_LANDSCAPE)
    ]
    lines = [
        r"% needs \usepackage{booktabs}; for a landscape page, such as a sidewaystable* of",
        r"% the package rotating; intervals are at 95 %",
        f"% {' '.join(table.caption.split())}",
        r"\begingroup\scriptsize\setlength{\tabcolsep}{3pt}",
    ]
    for part in parts:
        heads = [_narrow(row.label) for row in part]
        counts = [f"{row.n_faces} / {row.n_draws}" for row in part]
        lines += [
            rf"\begin{{tabular}}{{@{{}}l{'r' * len(part)}@{{}}}}",
            r"\toprule",
            " & ".join([escape_latex(table.head), *heads]) + r" \\",
            " & ".join(["faces / draws", *counts]) + r" \\",
            r"\midrule",
        ]
        for number, measure in enumerate(table.columns):
            unit = f"({measure.unit})" if measure.unit else ""
            title = " ".join(p for p in (measure.title, arrow(measure), unit) if p)
            # The interval stands below its value.
            cells = [row.cells[number] for row in part]
            values = [escape_latex(cell.value) for cell in cells]
            intervals = [rf"{{\tiny {escape_latex(cell.interval)}}}" for cell in cells]
            lines.append(" & ".join([escape_latex(title), *values]) + r" \\[-2pt]")
            lines.append(" & ".join(["", *intervals]) + r" \\")
        lines += [r"\bottomrule", r"\end{tabular}\par\medskip"]
    return "\n".join([*lines, r"\endgroup"]) + "\n"


def _narrow(label: str) -> str:
    """Heading of a narrow column: long names are broken into two lines at a word."""
    words = label.replace("_", " ").split()
    if len(label) <= 14 or len(words) < 2:
        return escape_latex(label)
    cut = min(
        range(1, len(words)),
        key=lambda i: max(len(" ".join(words[:i])), len(" ".join(words[i:]))),
    )
    above, below = (escape_latex(" ".join(half)) for half in (words[:cut], words[cut:]))
    return rf"\shortstack[r]{{{above} \\ {below}}}"


def escape_latex(text: str) -> str:
    """Escape what LaTeX reads as commands, on one line; control characters go.

    Letters that pdfLaTeX's fonts lack (beyond Latin Extended-A) become their code point.
    """
    known = (c for c in " ".join(text.split()) if c.isprintable())
    return "".join(LATEX.get(c, c if ord(c) <= LAST_LETTER else f"U+{ord(c):04X}") for c in known)
