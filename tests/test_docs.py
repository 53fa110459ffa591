"""The documentation is true of the repository: pages, links, commands, options, snippets."""

import ast
import csv
import importlib.util
import json
import re
import shlex
import textwrap
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote

import click
import pytest
import yaml

from pulse_audit.cli import commands
from pulse_audit.types import InputError

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
TEXTS = sorted(
    path
    for folder in (".", "docs", "benchmarks", "benchmarks/results", "reports", "examples")
    for path in (ROOT / folder).glob("*.md")
)
FENCE = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z_-]*")
LINK = re.compile(r"!?\[(?:[^\[\]]|\[[^\]]*\])*\]\(([^)\s]+)\)")


@pytest.fixture(scope="module")
def pages() -> ModuleType:
    """docs/pages.py, which makes pages from the code."""
    spec = importlib.util.spec_from_file_location("pages", DOCS / "pages.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def fences(text: str, *languages: str) -> list[str]:
    """Fenced code of some languages."""
    return [textwrap.dedent(code) for _, word, code in FENCE.findall(text) if word in languages]


def described(pages: ModuleType) -> dict[str, str]:
    """Every text by its path, with the sources of the notebooks."""
    texts = {name(path): path.read_text() for path in TEXTS}
    for path in sorted((DOCS / "notebooks").glob("*.ipynb")):
        texts[name(path)] = pages.notebook(path)[0]
    return texts


def test_every_page_of_the_menu_exists_and_every_page_is_in_it(pages: ModuleType) -> None:
    def leaves(node: object) -> list[str]:
        if isinstance(node, str):
            return [node]
        children = node.values() if isinstance(node, dict) else node
        return [leaf for child in children for leaf in leaves(child)]  # type: ignore[attr-defined]

    listed = leaves(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"])
    known = pages.pages()
    assert len(listed) == len(set(listed))
    hidden = {page for page in known.values() if page.startswith(("project/results/", "models/"))}
    assert set(listed) == set(known.values()) - hidden
    for source, page in known.items():
        made = page in pages.GENERATED or source.startswith("docs/notebooks/")
        assert made or (ROOT / source).is_file()


@pytest.mark.parametrize("path", TEXTS, ids=name)
def test_relative_links_lead_somewhere(path: Path, pages: ModuleType) -> None:
    known = pages.pages()
    text = FENCE.sub("", path.read_text())
    for target in LINK.findall(text):
        address = unquote(target.partition("#")[0])
        if not address or re.match(r"[a-z]+:", address):
            continue
        file = (path.parent / address).resolve()
        assert file.exists() or name(file) in known, f"{name(path)}: {target}"


def test_commands_and_options_exist(pages: ModuleType) -> None:
    parsed = 0
    for where, text in described(pages).items():
        for code in fences(text, "sh", "bash", "console", "python"):
            for line in code.replace("\\\n", " ").splitlines():
                if not (found := re.match(r"(?:#.*? |\$ )?pulse-audit (.*)", line.strip())):
                    continue
                # what follows is another command; `...` stands for whatever a user adds
                # and so do variables of the shell, such as the number of a task
                words = shlex.split(re.sub(r"\$\w+", "1", found[1]), comments=True)
                ends = [n for n, word in enumerate(words) if word in ("&&", "||", "|", ">", ";")]
                words = [word for word in words[: min(ends, default=None)] if word != "..."]
                if words == ["--help"]:
                    continue
                command = commands.commands[words[0]]
                try:
                    command.make_context(words[0], words[1:])
                except (click.UsageError, InputError) as error:
                    pytest.fail(f"{where}: pulse-audit {' '.join(words)}: {error}")
                parsed += 1
    assert parsed > 30


def test_options_in_the_text_exist(pages: ModuleType) -> None:
    known = {
        option
        for command in commands.commands.values()
        for parameter in command.params
        for option in (*parameter.opts, *parameter.secondary_opts)
    }
    # of make, docker and the benchmarks
    known |= {"--help", "--quick", "--kind", "--case"}
    for where, text in described(pages).items():
        if where.startswith("docs/") or where == "README.md":
            # of other programs, whose commands the text shows
            shown = set(re.findall(OPTION, "\n".join(fences(text, "sh"))))
            for code in re.findall(r"`([^`\n]+)`", FENCE.sub("", text)):
                for option in re.findall(OPTION, code):
                    assert option in known | shown, f"{where}: {option}"


@pytest.mark.parametrize("path", [*TEXTS, *sorted((DOCS / "notebooks").glob("*.ipynb"))], ids=name)
def test_python_compiles(path: Path, pages: ModuleType) -> None:
    text = pages.notebook(path)[0] if path.suffix == ".ipynb" else path.read_text()
    for code in fences(text, "python"):
        ast.parse(code)


def test_the_glossary_holds_every_metric_and_data_set(pages: ModuleType) -> None:
    from pulse_audit.datasets.registry import load_registry
    from pulse_audit.metrics.registry import METRICS

    glossary, sets = pages.metrics(), pages.datasets()
    assert all(f"| `{metric.name}` |" in glossary for metric in METRICS)
    for card in load_registry(None).cards.values():
        assert f"\n## {card.name} " in sets and card.terms in sets
    assert all(f"## pulse-audit {name}\n" in pages.command_line() for name in commands.commands)
    assert "faces-balanced" in pages.catalogue()


def test_calibration_is_quoted_as_published(pages: ModuleType) -> None:
    text = (DOCS / "methods.md").read_text()
    marks = pages._FIGURE.findall(text)
    assert len(marks) > 30
    assert not re.search(r"<!-- (?!calibration: )", text)
    for study, method in marks:
        assert re.search(r"\d %\*\*", pages.calibration(study, method or None))
    # every study of the calibration is quoted
    with pages.CALIBRATION.open(newline="") as file:
        assert {row["study"] for row in csv.DictReader(file)} <= {study for study, _ in marks}
    with pytest.raises(KeyError, match="no study"):
        pages.calibration("nothing", None)
    assert pages.calibration("drift", None).startswith("bias **-11.1 to -11.0 %** (2 scenarios")


@pytest.mark.parametrize("path", sorted((DOCS / "notebooks").glob("*.ipynb")), ids=name)
def test_notebooks_are_executed_small_and_without_errors(path: Path) -> None:
    assert path.stat().st_size < 1_000_000
    cells = [c for c in json.loads(path.read_text())["cells"] if c["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert len(outputs) > 3 and not any(o["output_type"] == "error" for o in outputs)
    # nothing of the machine that ran it
    assert not any(o.get("name") == "stderr" for o in outputs)
    assert not re.search(r"(?<![\w./])/(home|root|work|tmp|usr)/", path.read_text())


def test_the_site_loads_nothing_from_a_network() -> None:
    theme = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    assert theme["theme"]["font"] is False and "offline" in theme["plugins"]
    # Without this line the plug-in would load a script from a server.
    assert any("iframe-worker" in script for script in theme["extra"]["polyfills"])
    for path in (DOCS / "assets").iterdir():
        assert "://" not in path.read_text()
