"""Pages of the documentation that are made from the code, from data and from other texts.

A hook of mkdocs, which `mkdocs.yml` names. Links in Markdown are those of the repository: where one
leads to a file that is a page, it becomes a link to the page; other files go along into the site.
"""

from __future__ import annotations

import base64
import csv
import json
import posixpath
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

#: Texts of the repository that are pages, and where.
TEXTS = {
    "README.md": "project/readme.md",
    "ARCHITECTURE.md": "project/architecture.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "SECURITY.md": "project/security.md",
    "CHANGELOG.md": "project/changelog.md",
    "benchmarks/README.md": "project/benchmarks.md",
    "reports/README.md": "project/reports.md",
    "benchmarks/results/calibration.md": "calibration.md",
}
#: Pages that no menu shows: results of benchmarks, and the cards of the shipped models.
TEXTS |= {
    str(path.relative_to(ROOT)): f"{folder}/{path.name}"
    for source, folder in {
        "benchmarks/results": "project/results",
        "pulse_audit/assets": "models",
    }.items()
    for path in sorted((ROOT / source).glob("*.md"))
    if path.stem != "calibration"
}
CALIBRATION = ROOT / "benchmarks/results/calibration.csv"
# A link or a picture in Markdown; those in fenced code are left alone.
_LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")
_CODE = re.compile(r"(^```.*?^```|`[^`\n]+`)", re.MULTILINE | re.DOTALL)
_FIGURE = re.compile(r"<!-- calibration: ([^;>]+?)(?:; ([^>]+?))? -->")


def table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a table in Markdown."""

    def escaped(cell: str) -> str:
        # The bars of code need no mark.
        pieces = re.split(r"(`[^`]*`)", cell)
        pieces[::2] = [re.sub(r"(?<!\\)\|", r"\|", piece) for piece in pieces[::2]]
        return "".join(pieces)

    lines = [list(header)]
    lines += [["---"] * len(lines[0]), *([escaped(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def metrics() -> str:
    """Return the glossary of metrics, from their registry."""
    from pulse_audit.metrics.group_metrics import DERIVED_METRICS, OUTCOME_METRICS
    from pulse_audit.metrics.registry import DRAW_METRICS, FACE_FOUND

    sections = {
        "One number a draw": (
            "Columns of the samples, or taken from them. A summary holds the mean or the share "
            "over all draws of a group, with its interval.",
            DRAW_METRICS,
        ),
        "Apparent groups": (
            "Of the groups that the attribute model predicts on outputs, for every grouping that "
            "tests one of its attributes.",
            OUTCOME_METRICS,
        ),
        "Groups and sets of draws": (
            "Taken from many draws at once: they have no value for a single one.",
            DERIVED_METRICS,
        ),
        "Columns": ("Filled for other metrics, and estimated by none.", [FACE_FOUND]),
    }
    text = [
        "# Metrics",
        "From the registry of the code (`pulse_audit/metrics/registry.py`), which also gives the "
        "columns of the samples, what `--metrics` takes and `pulse-audit list metrics`. *From px*: "
        "the side of the compared images from which on a metric is defined; below it is listed as "
        "unavailable, with the reason. *On request*: measured only where `--metrics` names it. How "
        "each is estimated, and how well its interval covers: [Methods](methods.md).",
    ]
    for title, (introduction, entries) in sections.items():
        rows = (
            (
                f"`{m.name}`",
                f"**{m.title}**: {m.description}" + (" (on request)" if m.on_request else ""),
                m.unit or "-",
                m.direction,
                str(m.smallest) if m.measured_from else "-",
                m.needs or m.weights or "-",
            )
            for m in entries
        )
        header = ("name", "what it is", "unit", "better", "from px", "needs")
        text += [f"## {title}", introduction, table(header, rows)]
    return "\n\n".join(text)


def datasets() -> str:
    """Return the data sets and their terms, from datasets.yaml."""
    from pulse_audit.datasets.registry import load_registry

    cards = load_registry(None).cards.values()
    text = [
        "# Data sets and their terms",
        "From `datasets.yaml`, which ships with the package. pulse-audit downloads none of them: "
        "how to obtain one is said below, and `pulse-audit validate NAME --data-root DIR` checks "
        "what was obtained. Terms are summaries; read the originals. Where *photos in public "
        "reports* says no, `pulse-audit report RUN --public` leaves photos out.",
        table(
            ("name", "title", "groups", "labels from", "photos in public reports"),
            (
                (
                    f"[{c.name}](#{c.name.replace('.', '-')})",
                    c.title,
                    " x ".join(c.group_by) or "-",
                    c.labels_from,
                    "yes" if c.may_publish_images else "no",
                )
                for c in cards
            ),
        ),
        "A further name, `samples:GENERATOR`, draws the faces of a self-audit from a generator's "
        "own prior; their labels are the attribute model's.",
    ]
    for card in cards:
        words = {
            **{column: ", ".join(words) or "open" for column, words in card.vocabulary.items()},
            **{
                f"{name} (from {derived.source})": ", ".join(
                    f"{group}: {' + '.join(members)}" for group, members in derived.groups.items()
                )
                + (f", no group: {' + '.join(derived.no_group)}" if derived.no_group else "")
                for name, derived in card.derived.items()
            },
        }
        counts = ", ".join(
            f"{split} {expected.count:,}{'' if expected.confirmed else ' (unconfirmed)'}"
            for split, expected in card.expected.items()
        )
        facts = {
            "Title": card.title,
            "Licence": card.licence,
            "Terms": card.terms,
            "Photos in public reports": "yes" if card.may_publish_images else "no",
            "Labels": f"from {card.labels_from}. {card.labels_note}",
            "Vocabulary": "; ".join(f"*{c}*: {w}" for c, w in list(words.items())[:8])
            + (f"; {len(words) - 8} more columns" if len(words) > 8 else "")
            or "none",
            "Crop": f"`{card.crop}`",
            "Faces of a complete copy": counts or "not known",
            "How to obtain it": card.obtain,
            "Address": f"<{card.url}>" if card.url else "none",
            "Citation": card.citation,
        }
        anchor = card.name.replace(".", "-")
        text.append(f"## {card.name} {{ #{anchor} }}")
        text += [f"**{name}.** {fact}" for name, fact in facts.items()]
    return "\n\n".join(text)


def command_line() -> str:
    """Return the reference of all commands, from the program itself."""
    import click

    from pulse_audit.cli import commands

    def escaped(text: str) -> str:
        return re.sub(r"([\[\]<>*_])", r"\\\1", " ".join(text.split()))

    text = []
    for name, command in commands.commands.items():
        context = click.Context(command, info_name=f"pulse-audit {name}")
        usage = command.get_usage(context).removeprefix("Usage: ")
        introduction = [escaped(part) for part in (command.help or "").split("\n\n")]
        usage = f"```text\n{' '.join(usage.split())}\n```"
        text += [f"## pulse-audit {name}", usage, *introduction]
        for option in command.params:
            if isinstance(option, click.Option) and not option.hidden:
                shown, what = option.get_help_record(context) or ("", "")
                text.append(f"`{' '.join(shown.split())}`\n:   {escaped(what) or 'no text'}")
    return "\n\n".join(text)


def catalogue() -> str:
    """Return the table of generators known by name, from their cards."""
    from pulse_audit.models.published import cards
    from pulse_audit.models.shipped import shipped_file, shipped_generators

    rows = []
    for name in shipped_generators():
        content = json.loads(shipped_file(name).with_suffix(".json").read_text())
        card = content["card"]
        form = f"{content['family']}, {card['resolution']} px, crop {card['crop']}"
        rows.append((f"`{name}`", f"{card['title']} ({form})", card["licence"], "shipped"))
    for entry in cards().values():
        if entry.kind == "generator":
            form = f"{entry.family}, {entry.resolution} px, crop {entry.crop}"
            how = f"by hand: {entry.obtain}" if entry.obtain else "fetched"
            what = f"{entry.title} ({form})"
            rows.append((f"`{entry.name}`", what, entry.licence.name, how))
    return table(("name", "what", "licence", "how it comes"), rows)


def calibration(study: str, method: str | None) -> str:
    """Return what the published calibration says of a study, and of one method in it.

    Parameters
    ----------
    study : str
        Column ``study`` of calibration.csv, without regard to case.
    method : str, optional
        The beginning of column ``method``.
    """
    with CALIBRATION.open(newline="") as file:
        rows = [
            row
            for row in csv.DictReader(file)
            if row["study"].lower() == study.lower() and row["method"].startswith(method or "")
        ]
    if not rows:
        raise KeyError(f"calibration.csv has no study {study!r} with method {method!r}")
    parts = []
    for measure in dict.fromkeys(row["measures"] for row in rows):
        of = [row for row in rows if row["measures"] == measure]
        values = sorted(100 * float(row["value"]) for row in of)
        ends = [f"{values[0]:.1f}", f"{values[-1]:.1f}"]
        range_ = ends[0] if ends[0] == ends[1] else " to ".join(ends)
        lows = {row["low"] for row in of if row["low"]}
        highs = {row["high"] for row in of if row["high"]}
        low = f"{100 * min(map(float, lows)):g}" if lows else ""
        high = f"{100 * max(map(float, highs)):g}" if highs else ""
        wanted = "–".join(filter(None, [low, high]))
        kind = "" if low and high else "at least " if low else "at most "
        size = f"{len(of)} scenario{'s' if len(of) > 1 else ''}"
        size += "" if any(int(row["replicates"]) for row in of) else ", enumerated exactly"
        asked = f"; required {kind}{wanted}" if wanted else ""
        parts.append(f"{measure} **{range_} %** ({size}{asked})")
    return ", ".join(parts)


def notebook(path: Path) -> tuple[str, dict[str, bytes]]:
    """Return an executed notebook as Markdown, and its pictures by file name."""
    text, pictures = [], {}
    for number, cell in enumerate(json.loads(path.read_text())["cells"]):
        source = "".join(cell["source"])
        text.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        for place, output in enumerate(cell.get("outputs", [])):
            data = output.get("data", {"text/plain": output.get("text", "")})
            if "image/png" in data:
                name = f"{path.stem}-{number}-{place}.png"
                pictures[name] = base64.b64decode("".join(data["image/png"]))
                text.append(f"![Output of the cell above]({name})")
            elif "text/html" in data:
                html = re.sub(r"\s*\n\s*", " ", "".join(data["text/html"]))
                text.append(f'<div class="output">{html}</div>')
            else:
                text.append(f"```text\n{''.join(data['text/plain']).rstrip()}\n```")
    text.append(f"[The notebook]({path.name}) itself, to run again.")
    return "\n\n".join(text) + "\n", pictures


#: Pages made from the code.
GENERATED: Mapping[str, Callable[[], str]] = {"metrics.md": metrics, "datasets.md": datasets}
#: Marks in written pages, and what takes their place.
MARKS: Mapping[str, Callable[[], str]] = {
    "<!-- catalogue of generators -->": catalogue,
    "<!-- commands -->": command_line,
}


def pages() -> dict[str, str]:
    """From files of the repository to pages of the site, generated ones under docs/."""
    written = {f"docs/{p.name}": p.name for p in sorted((ROOT / "docs").glob("*.md"))}
    made = {f"docs/{name}": name for name in GENERATED}
    notebooks = sorted((ROOT / "docs/notebooks").glob("*.ipynb"))
    run = {f"docs/notebooks/{p.stem}.md": f"notebooks/{p.stem}.md" for p in notebooks}
    return {**TEXTS, **written, **made, **run}


def relink(text: str, source: str, page: str, attach: Callable[[str], str]) -> str:
    """Turn links between files of the repository into links between pages of the site.

    Parameters
    ----------
    text : str
        Markdown.
    source, page : str
        Path of its file in the repository, and of its page below docs/.
    attach : callable
        Takes the path of another file, and returns its path in the site or "" to drop the link.
    """
    known = pages()

    def replace(match: re.Match[str]) -> str:
        picture, words, target = match.groups()
        address, _, fragment = target.partition("#")
        if not address or re.match(r"[a-z]+:", address):
            return match[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), address))
        there = known.get(path) or attach(path)
        if not there:
            return f"{words} (`{path}`)" if words != path else f"`{path}`"
        relative = posixpath.relpath(there, posixpath.dirname(page) or ".")
        return f"{picture}[{words}]({relative}{'#' + fragment if fragment else ''})"

    pieces = _CODE.split(text)
    pieces[::2] = [_LINK.sub(replace, piece) for piece in pieces[::2]]
    return "".join(pieces)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made, and the texts and notebooks that are taken over."""
    from mkdocs.structure.files import File

    for page, make in GENERATED.items():
        files.append(File.generated(config, page, content=make()))
    for source, page in TEXTS.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text()))
    for path in sorted((ROOT / "docs/notebooks").glob("*.ipynb")):
        text, pictures = notebook(path)
        files.append(File.generated(config, f"notebooks/{path.stem}.md", content=text))
        for name, data in pictures.items():
            files.append(File.generated(config, f"notebooks/{name}", content=data))
    # Files beside the texts, such as their pictures and tables, are known only once links are read.
    taken: dict[str, str] = {}

    def attach(path: str) -> str:
        file = ROOT / path
        if path.startswith("docs/"):
            return path.removeprefix("docs/")
        if not file.is_file() or path.startswith("reports/"):
            return ""
        if path not in taken:
            taken[path] = f"files/{path}"
            files.append(File.generated(config, taken[path], abs_src_path=str(file)))
        return taken[path]

    sources = {page: source for source, page in pages().items()}
    for page in list(files.documentation_pages()):
        source = sources[page.src_uri]
        text = relink(page.content_string, source, page.src_uri, attach)
        for mark, make in MARKS.items():
            text = text.replace(mark, make() if mark in text else "")
        text = _FIGURE.sub(lambda found: calibration(found[1], found[2]), text)
        files.remove(page)
        files.append(File.generated(config, page.src_uri, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Leave no search result for the long tables, which have nothing to be searched for."""
    if page.file.src_uri.startswith(("calibration", "project/results/")):
        page.meta: dict[str, Any] = {**page.meta, "search": {"exclude": True}}
    return markdown


def on_post_build(config: MkDocsConfig) -> None:
    """Stop where a page would load something from a network."""
    # Only a server has a use for this page, whose addresses begin at its root.
    (Path(config.site_dir) / "404.html").unlink(missing_ok=True)
    loads = re.compile(
        r"<(?:script|img|iframe|link|source|video|object)\b[^>]*\b(?:src|href|data)=\"?(?:https?:)?//"
    )
    for path in Path(config.site_dir).rglob("*.html"):
        if found := loads.search(path.read_text()):
            raise SystemExit(f"{path}: loads from a network: {found[0]}")
