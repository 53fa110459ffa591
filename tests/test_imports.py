"""Imports run one way, and packages without torch stay without it."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "pulse_audit"
BASE_PACKAGES = {"search", "generators", "degrade", "upsamplers", "faces", "metrics"}
WITHOUT_TORCH = {
    "types", "frames", "seeding", "names", "conditions", "sweeps", "documents", "files",
    "datasets", "store", "stats", "fairness", "summary", "gate", "report", "calibration", "cli",
    "loggers", "options", "terminal",
}  # fmt: skip
LOWEST = {
    "types", "frames", "seeding", "names", "conditions", "sweeps", "documents", "files", "sandbox",
    "onnx_model",
}  # fmt: skip

#: package or file -> what it may import beside itself.
ALLOWED = {
    "seeding": set(),
    "frames": set(),
    "names": {"types"},
    "conditions": {"types", "names"},
    "sweeps": {"types", "names"},
    "documents": {"types"},
    "files": {"types", "documents"},
    "types": {"seeding", "frames"},
    "sandbox": {"__init__"},
    "onnx_model": {"types", "documents", "sandbox"},
    **{leaf: LOWEST for leaf in BASE_PACKAGES},
    "search": LOWEST | {"degrade", "generators"},
    "datasets": LOWEST,
    "options": LOWEST,
    "terminal": LOWEST | {"metrics"},
    "store": LOWEST | {"metrics"},
    "stats": LOWEST,
    "fairness": LOWEST | {"stats"},
    "summary": LOWEST | {"metrics", "store", "stats", "fairness"},
    "calibration": LOWEST | {"store", "stats", "fairness", "summary"},
    "gate": LOWEST | {"metrics", "store", "stats", "fairness", "summary"},
    "report": LOWEST | {"metrics", "store", "stats", "fairness", "summary", "gate"},
    "loggers": LOWEST | {"store", "summary", "report"},
}
TOP = {
    "plugins",
    "models",
    "training",
    "harness",
    "listing",
    "api",
    "cli",
    "pytest_plugin",
    "__init__",
}
#: For the uppermost ones: what they may not import.
FORBIDDEN = {
    "plugins": {"models", "training", "harness", "listing", "terminal", "api", "cli"},
    "models": {"training", "harness", "listing", "terminal", "api", "cli"},
    "training": {"harness", "listing", "terminal", "api", "cli"},
    "harness": {"training", "listing", "api", "cli"},
    "listing": {"training", "api", "cli", "terminal"},
    "api": {"cli", "listing", "terminal"},
    "cli": {"api"},
    "pytest_plugin": TOP - {"__init__"},
    "__init__": TOP - {"api"},
}


def package_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_packages(path: Path) -> set[str]:
    """Packages of pulse_audit that a file imports, at any depth, functions included."""
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
        package
        for package in found
        if (PACKAGE / package).exists() or (PACKAGE / f"{package}.py").exists()
    }


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_file_imports_only_what_lies_below_it(path: Path) -> None:
    package = package_of(path)
    reached = imported_packages(path) - {package}
    if package in ALLOWED:
        assert reached <= ALLOWED[package], (
            f"{package} imports {sorted(reached - ALLOWED[package])}"
        )
    else:
        assert package in TOP, f"{package} is not in the table of imports: add it"
        assert not reached & FORBIDDEN[package]


#: Imports the modules of each package as a new interpreter would: with none of ours loaded yet.
IMPORT_EACH = """
import importlib, json, sys
for package, modules in json.loads(sys.argv[1]).items():
    for name in [name for name in sys.modules if name.split(".")[0] == "pulse_audit"]:
        del sys.modules[name]
    for module in modules:
        importlib.import_module(module)
    assert "torch" not in sys.modules, f"{package} loads torch"
"""


def run_python(*arguments: str) -> None:
    """Run a new interpreter, whose last words are the reason of a failure."""
    result = subprocess.run([sys.executable, *arguments], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-2000:] or f"exit code {result.returncode}"


def test_packages_without_torch_never_load_it() -> None:
    modules: dict[str, list[str]] = {package: [] for package in sorted(WITHOUT_TORCH)}
    for path in FILES:
        if (package := package_of(path)) in modules:
            name = ".".join(["pulse_audit", *path.relative_to(PACKAGE).with_suffix("").parts])
            modules[package].append(name.removesuffix(".__init__"))
    assert all(modules.values())
    run_python("-c", IMPORT_EACH, json.dumps(modules))


def test_help_loads_nothing_heavy() -> None:
    run_python(
        "-c",
        "import sys\nfrom pulse_audit.cli import outcome\noutcome(['--help'])\n"
        "assert not {'torch', 'numpy', 'pandas', 'pydantic', 'rich'} & set(sys.modules)",
    )
