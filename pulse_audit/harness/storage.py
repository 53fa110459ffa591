"""Copies of a run in object storage: written as its work units are finished, and brought back.

A run is made in a folder, which has its lock. The copy is written after it and never read, but to
begin again on another machine, or to be merged.
"""

from __future__ import annotations

import contextlib
import posixpath
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

from pulse_audit import store
from pulse_audit.documents import MAX_RECORD, read_file
from pulse_audit.files import atomic_write
from pulse_audit.store.features import MAX_FEATURES
from pulse_audit.store.manifest import WorkUnit
from pulse_audit.store.parquet import MAX_FILE
from pulse_audit.types import InputError

#: Files of a run that belong to no work unit; the manifest, which makes it a run, last.
OF_THE_RUN = ("references.json", "features/originals.npz", "summary.json", "manifest.json")


class Copy:
    """A copy of one run.

    Parameters
    ----------
    url : str
        A folder of any file system of fsspec, such as ``s3://bucket/run``.

    Attributes
    ----------
    problem : str or None
        Why the last file could not be copied; None where all were.

    Raises
    ------
    InputError
        If the URL holds a password, or no package for its protocol is installed.
    """

    def __init__(self, url: str) -> None:
        import fsspec

        if urlsplit(url).password is not None:
            host = urlsplit(url).hostname
            raise InputError(f"a URL with a password (of {host}); it belongs into the environment")
        try:
            self._files, root = fsspec.core.url_to_fs(url)
        except ImportError as error:
            hint = "; pip install 'pulse-audit[s3]'" if url.startswith("s3:") else ""
            raise InputError(f"{url}: {_line(error)}{hint}") from None
        except Exception as error:  # each file system has errors of its own
            raise InputError(f"{url}: {_line(error)}") from None
        self.url, self._root = url, str(root).rstrip("/")
        self.problem: str | None = None
        self._waiting: list[str] = []
        #: Names that are there; None before they are listed.
        self._there: set[str] | None = None

    def holds_a_run(self) -> bool:
        """Whether there is a manifest; InputError where that cannot be told."""
        return "manifest.json" in self._listed()

    def send(self, run: store.Run, unit: WorkUnit) -> None:
        """Copy the files of a unit just made, its samples last, and what waits since before."""
        # Those of an earlier try are replaced.
        self._names().difference_update(run.names_of(unit.id))
        self._send(run, [*run.images_of(unit), *run.names_of(unit.id)])

    def update(self, run: store.Run) -> None:
        """Copy the units that are not there yet, and the files of the run itself as they are."""
        there = self._names()
        for unit in run.manifest.own_units:
            # The samples of a unit are its last file.
            last = run.names_of(unit.id)[-1]
            if last not in there and run.is_finished(unit.id):
                self._waiting += [*run.images_of(unit), *run.names_of(unit.id)]
        there -= {*OF_THE_RUN}
        self._send(run, [name for name in OF_THE_RUN if (run.path / name).exists()])

    def _send(self, run: store.Run, names: Iterable[str]) -> None:
        there, self.problem = self._names(), None
        self._waiting = list(dict.fromkeys([*self._waiting, *names]))
        # In this order: where a file cannot be copied, the later ones wait with it.
        while self._waiting:
            name = self._waiting[0]
            try:
                if name not in there:
                    data = read_file(run.path / name, max(MAX_RECORD, MAX_FILE, MAX_FEATURES))
                    path = self._path(name)
                    self._files.makedirs(posixpath.dirname(path), exist_ok=True)
                    self._files.pipe_file(path, data)
            except Exception as error:  # each file system has errors of its own
                count = len(self._waiting)
                self.problem = f"{count:,} files are not copied to {self.url} ({_line(error)})"
                return
            there.add(self._waiting.pop(0))

    def bring(self, folder: Path) -> store.Run:
        """Bring the run into a folder that is empty or missing; units that are damaged stay so.

        Only files that the manifest's plan implies are asked for.

        Raises
        ------
        InputError
            If there is no manifest that can be used, the storage does not answer, or the folder
            holds something else.
        """
        there = self._listed()
        if "manifest.json" not in there:
            raise InputError(f"{self.url}: no run (manifest.json is missing)")
        with store.locked(folder) as existing:
            if existing is not None:
                raise InputError(f"{folder}: holds a run")
            self._bring("manifest.json", folder, MAX_RECORD)
            try:
                run = store.open_run(folder)
            except InputError as error:
                (folder / "manifest.json").unlink()
                raise InputError(f"{self.url}: {error}") from None
            for unit in run.manifest.own_units:
                names = run.names_of(unit.id)
                if not there.issuperset(names):
                    continue
                for name in names:
                    self._bring(name, folder, max(MAX_FILE, MAX_FEATURES))
                # The rows say which images there are.
                images = run.images_of(unit) if run.is_finished(unit.id) else []
                for name in images:
                    if name in there and not (folder / name).exists():
                        self._bring(name, folder, MAX_FILE)
            for name in OF_THE_RUN[:2]:
                if name in there:
                    self._bring(name, folder, max(MAX_RECORD, MAX_FEATURES))
        return run

    def _bring(self, name: str, folder: Path, limit: int) -> None:
        """Bring one file; InputError if it is larger than the limit or cannot be read."""
        try:
            with self._files.open(self._path(name), "rb") as file:
                data = file.read(limit + 1)
        except Exception as error:  # each file system has errors of its own
            raise InputError(f"{self.url}: {name} cannot be read ({_line(error)})") from None
        if len(data) > limit:
            raise InputError(f"{self.url}: {name} has more than {limit:,} bytes")
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        atomic_write(folder / name, data)

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _names(self) -> set[str]:
        """Names that are there; none where the storage does not answer, so that all are sent."""
        try:
            return self._listed()
        except InputError:
            return set()

    def _listed(self) -> set[str]:
        if self._there is None:
            try:
                self._files.invalidate_cache()
                paths = self._files.find(self._root)
            except FileNotFoundError:
                paths = []
            except Exception as error:  # each file system has errors of its own
                raise InputError(f"{self.url}: does not answer ({_line(error)})") from None
            start = len(self._root.lstrip("/")) + 1
            self._there = {str(path).lstrip("/")[start:] for path in paths}
        return self._there


def begin_copy(url: str, out: Path) -> Copy:
    """Return the copy at a URL; where ``out`` holds no run yet, bring the one that is there.

    Raises
    ------
    InputError
        As of `Copy` and `Copy.bring`.
    """
    copy = Copy(url)
    if not (out / "manifest.json").exists() and copy.holds_a_run():
        copy.bring(out)
    return copy


@contextlib.contextmanager
def brought(places: Iterable[Path | str]) -> Iterator[list[Path]]:
    """Yield folders of runs: those that are given, and what is at URLs, for as long as needed.

    Raises
    ------
    InputError
        As of `Copy` and `Copy.bring`.
    """
    with tempfile.TemporaryDirectory(prefix="pulse-audit-") as temporary:
        yield [
            place if isinstance(place, Path) else Copy(place).bring(Path(temporary, f"{n}")).path
            for n, place in enumerate(places)
        ]


def _line(error: Exception) -> str:
    """Return what an error says, in one line."""
    return " ".join(f"{error}".split())[:200] or type(error).__name__
