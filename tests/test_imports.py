"""Imports run one way, and rooms without torch stay without it."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "pulse_audit"
LEAVES = {"search", "generators", "degrade", "upsamplers", "faces", "metrics"}
WITHOUT_TORCH = {
    "types", "seeding", "names", "files", "datasets", "store", "stats", "fairness",
    "summary", "gate", "report", "calibration", "cli", "options", "terminal",
}  # fmt: skip
BOTTOM = {"types", "seeding", "names", "files"}

#: room -> rooms it may import (beside itself).
ALLOWED = {
    "seeding": set(),
    "names": {"types"},
    "files": {"types"},
    "types": {"seeding"},
    **{leaf: BOTTOM for leaf in LEAVES},
    "search": BOTTOM | {"degrade", "generators"},
    "datasets": BOTTOM,
    "options": BOTTOM,
    "terminal": BOTTOM | {"metrics"},
    "store": BOTTOM | {"metrics"},
    "stats": BOTTOM,
    "fairness": BOTTOM | {"stats"},
    "calibration": BOTTOM | {"stats", "fairness"},
    "summary": BOTTOM | {"metrics", "store", "stats", "fairness"},
    "gate": BOTTOM | {"metrics", "store", "stats", "fairness", "summary"},
    "report": BOTTOM | {"metrics", "store", "stats", "fairness", "summary"},
}
TOP = {
    "plugins",
    "models",
    "training",
    "harness",
    "listing",
    "api",
    "cli",
    "__init__",
}
#: among the upper floors: who may not be imported by whom.
FORBIDDEN_ABOVE = {
    "plugins": {"models", "training", "harness", "listing", "terminal", "api", "cli"},
    "models": {"training", "harness", "listing", "terminal", "api", "cli"},
    "training": {"harness", "listing", "terminal", "api", "cli"},
    "harness": {"training", "listing", "api", "cli"},
    "listing": {"training", "api", "cli", "terminal"},
    "api": {"cli", "listing", "terminal"},
    "cli": {"api"},
    "__init__": TOP - {"api"},
}


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_rooms(path: Path) -> set[str]:
    """Rooms of the package a file imports, at any depth, functions included."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        found |= {
            parts[1]
            for name in names
            if (parts := name.split("."))[0] == "pulse_audit" and parts[1:]
        }
    return {
        room for room in found if (PACKAGE / room).exists() or (PACKAGE / f"{room}.py").exists()
    }


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_file_imports_only_the_floors_below_it(path: Path) -> None:
    room = room_of(path)
    reached = imported_rooms(path) - {room}
    if room in ALLOWED:
        assert reached <= ALLOWED[room], f"{room} imports {sorted(reached - ALLOWED[room])}"
    else:
        assert room in TOP, f"{room} has no floor: add it to the plan of the house"
        assert not reached & FORBIDDEN_ABOVE[room]


@pytest.mark.parametrize("room", sorted(WITHOUT_TORCH))
def test_rooms_without_torch_never_load_it(room: str) -> None:
    modules = [
        ".".join(["pulse_audit", *path.relative_to(PACKAGE).with_suffix("").parts])
        for path in FILES
        if room_of(path) == room
    ]
    if not modules:
        pytest.skip(f"{room} is not built yet")
    code = f"import sys, {', '.join(modules)}; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\nfrom pulse_audit.cli import outcome\noutcome(['--help'])\n"
        "assert not {'torch', 'numpy', 'pandas', 'pydantic', 'rich'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, capture_output=True)
