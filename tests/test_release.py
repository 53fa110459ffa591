"""What a release needs beside the code: citation, container, workflows, lists of what is in it."""

import re
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

import pulse_audit

ROOT = Path(__file__).resolve().parents[1]


def test_the_citation_has_what_cff_1_2_0_asks_for() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    # The keys that the schema requires, and those that we promise.
    assert citation["cff-version"] == "1.2.0" and citation["type"] in ("software", "dataset")
    assert citation["message"] and citation["title"] and citation["authors"]
    allowed = {
        "abstract", "authors", "cff-version", "commit", "contact", "date-released", "doi",
        "identifiers", "keywords", "license", "license-url", "message", "preferred-citation",
        "references", "repository", "repository-artifact", "repository-code", "title", "type",
        "url", "version",
    }  # fmt: skip
    assert set(citation) <= allowed
    # An entity has a name, a person a family name; a reference also says what it is.
    everyone = [*citation["authors"], *(a for r in citation["references"] for a in r["authors"])]
    assert all(("name" in who) != ("family-names" in who) for who in everyone)
    assert all({"type", "title", "authors"} <= set(r) for r in citation["references"])
    assert str(citation["version"]) == project["version"] == pulse_audit.__version__
    assert citation["license"] == project["license"]


def test_no_file_names_a_registry_or_an_index() -> None:
    paths = [
        *ROOT.glob("*.lock"), *ROOT.glob(".ci/*"), *ROOT.glob(".github/**/*.yml"),
        *(ROOT / n for n in ("Makefile", "Dockerfile", ".dockerignore", "pyproject.toml")),
    ]  # fmt: skip
    for path in (p for p in paths if p.is_file()):
        text = path.read_text()
        assert not re.search(r"://|--(extra-)?index-url|--find-links|pypi\.org", text), path.name


@pytest.mark.parametrize("lock", ["requirements.lock", ".ci/requirements-docs.lock"])
def test_every_locked_package_has_hashes(lock: str) -> None:
    packages = re.split(r"\n(?=[a-z])", (ROOT / lock).read_text())[1:]
    assert len(packages) > 40
    assert all(re.search(r"--hash=sha256:[0-9a-f]{64}", package) for package in packages)


def test_both_locks_fit_together() -> None:
    pinned = [
        dict(re.findall(r"^([a-z][\w.-]*)==(\S+)", (ROOT / lock).read_text(), re.MULTILINE))
        for lock in ("requirements.lock", ".ci/requirements-docs.lock")
    ]
    shared = set(pinned[0]) & set(pinned[1])
    assert shared and all(pinned[0][name] == pinned[1][name] for name in shared)


def test_the_container_uses_the_lock_and_no_root() -> None:
    lines = (ROOT / "Dockerfile").read_text()
    stages = re.findall(r"^([A-Z]+) (.*)$", lines, re.MULTILINE)
    words = [word for word, _ in stages]
    assert words.count("FROM") == 1 and ("ENTRYPOINT", '["pulse-audit"]') in stages
    assert lines.count("--require-hashes") == 2 and "requirements.lock" in lines
    # The user is set after everything that installs.
    assert words.index("USER") > len(words) - 1 - words[::-1].index("RUN")
    # Whatever is copied is let through.
    let_through = (ROOT / ".dockerignore").read_text().splitlines()
    for word, rest in stages:
        if word == "COPY":
            for path in rest.split()[:-1]:
                assert (ROOT / path).exists() and f"!{path}" in let_through


def test_without_torch_the_lock_loses_torch_and_cuda_alone() -> None:
    pattern = re.search(r"keep = !/(\S+)/\}", (ROOT / "Dockerfile").read_text())
    assert pattern is not None
    names = re.findall(r"^[a-z][\w.-]*==", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    left_out = {n[:-2] for n in names if re.match(pattern[1], n)}
    assert {"torch", "torchvision"} <= left_out
    assert all(re.match(r"torch|torchvision|triton|nvidia-|cuda-", n) for n in left_out)
    assert "facenet-pytorch" not in left_out


def test_workflows_run_the_make_targets_on_every_python() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
    jobs = workflow["jobs"]
    assert jobs["tests"]["strategy"]["matrix"]["python"] == ["3.11", "3.12", "3.13"]
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    runs = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    assert {"make test", "make docs", "make dist", "make gate"} <= set(runs)
    assert {run.split()[1] for run in runs if run.startswith("make ")} <= targets


def test_what_a_wheel_lacks_or_has_too_much_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / ".ci")
    import dist

    found = {"pulse_audit/cli.py", "tests/test_cli.py"}
    assert dist.differences("wheel", found, {"pulse_audit/cli.py", "pulse_audit/api.py"}) == [
        "wheel: tests/test_cli.py should not be in it",
        "wheel: pulse_audit/api.py is missing",
    ]
    assert all((ROOT / n).is_file() for n in dist.NEEDED if n != "pulse_audit/datasets.yaml")
    assert "dist" in sys.modules
