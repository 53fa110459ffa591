"""Check the wheel and the source distribution of dist/: contents and metadata. See `make dist`.

The wheel holds the tracked files of pulse_audit and datasets.yaml, and nothing else; the source
distribution what the wheel is built from. So neither has tests, runs, reports or photos: the
pictures of pulse_audit/assets, the only ones, show faces that generators made.
"""

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

from packaging.metadata import Metadata

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [
    "CHANGELOG.md",
    "CITATION.cff",
    "LICENSE",
    "README.md",
    "SECURITY.md",
    "pyproject.toml",
]
NEEDED = (
    "pulse_audit/assets/faces-balanced.safetensors",
    "pulse_audit/assets/faces-skewed.safetensors",
    "pulse_audit/assets/faces-attributes.safetensors",
    "pulse_audit/assets/summary.schema.json",
    "pulse_audit/datasets.yaml",
    "pulse_audit/models/weights.yaml",
    "pulse_audit/py.typed",
    "pulse_audit/report/templates/page.html.j2",
    "pulse_audit/specs/default.yaml",
)
PICTURES = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}
MOST_BYTES = 40_000_000


def tracked() -> set[str]:
    """Files of the package that git knows."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "pulse_audit"], cwd=ROOT, capture_output=True, check=True
    )
    return {name for name in listed.stdout.decode().split("\0") if name}


def differences(what: str, found: set[str], wanted: set[str]) -> list[str]:
    """Name what is there and should not be, and the other way round."""
    return [
        *(f"{what}: {name} should not be in it" for name in sorted(found - wanted)),
        *(f"{what}: {name} is missing" for name in sorted(wanted - found)),
    ]


def check(wheel: Path, sdist: Path) -> list[str]:
    """Return what is wrong with the two."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        info = next(name.split("/")[0] for name in names if ".dist-info/" in name)
        text = archive.read(f"{info}/METADATA")
        entries = archive.read(f"{info}/entry_points.txt").decode()
    with tarfile.open(sdist) as archive:
        source = {m.name.split("/", 1)[1] for m in archive.getmembers() if m.isfile()}

    # The contents, against what git knows.
    package = tracked()
    in_wheel = {name for name in names if not name.startswith(f"{info}/")}
    problems = differences("wheel", in_wheel, package | {"pulse_audit/datasets.yaml"})
    extras = {"datasets.yaml", "PKG-INFO", ".gitignore", *DOCUMENTS}
    problems += differences("sdist", source | {".gitignore"}, package | extras)
    problems += [f"wheel: {name} is missing" for name in NEEDED if name not in in_wheel]
    problems += [
        f"{name}: a picture outside pulse_audit/assets"
        for name in sorted(in_wheel | source)
        if Path(name).suffix in PICTURES and not name.startswith("pulse_audit/assets/")
    ]
    problems += [
        f"{path.name}: {path.stat().st_size:,} bytes, more than {MOST_BYTES:,}"
        for path in (wheel, sdist)
        if path.stat().st_size > MOST_BYTES
    ]

    # The metadata, by the rules of the core metadata specification.
    metadata = Metadata.from_email(text, validate=True)
    if metadata.description_content_type != "text/markdown" or not metadata.description:
        problems.append("metadata: no description in Markdown")
    for name in ("summary", "license_expression", "requires_python", "classifiers"):
        if not getattr(metadata, name):
            problems.append(f"metadata: {name} is missing")
    if "pulse-audit = pulse_audit.cli:main" not in entries:
        problems.append("metadata: the command pulse-audit is missing")
    if any(r.url for r in metadata.requires_dist or []):
        problems.append("metadata: a requirement by address")
    return problems


if __name__ == "__main__":
    (wheel,), (sdist,) = (sorted((ROOT / "dist").glob(p)) for p in ("*.whl", "*.tar.gz"))
    problems = check(wheel, sdist)
    for problem in problems:
        print(problem, file=sys.stderr)
    if not problems:
        print(f"{wheel.name}, {sdist.name}: contents and metadata are as they should be")
    sys.exit(bool(problems))
