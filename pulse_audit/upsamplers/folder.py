"""Outputs that were made elsewhere, in files: ``folder:DIR``.

``pulse-audit export-inputs`` writes the inputs of a run under the names by which their outputs are
found again: a folder for every condition and scale, in it a file for every face. An output has the
name of its input, in any raster format; where a method answers a face several times, the draws end
in ``_1``, ``_2``, and so on.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pulse_audit.files import file_sha256
from pulse_audit.seeding import hexdigest
from pulse_audit.types import Degradation, InputError, Request, Upsampled
from pulse_audit.upsamplers.outputs import ReadPicture, failed, judged

#: Ends of the names of pictures.
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".ppm")
#: Longest name of a picture without its end; file systems take 255 bytes.
LONGEST = 120
_NUMBER = re.compile(r"_[0-9]{1,5}$")


def setting_folder(condition: str, scale: int) -> str:
    """Return the folder of a condition and a scale: ``clean-x8``, ``gaussian-25-x8``."""
    return f"{re.sub(r'[^A-Za-z0-9.]+', '-', condition)}-x{scale}"


def picture_names(face_ids: Sequence[str]) -> dict[str, str]:
    """Return the name of every face's pictures, without its end: ``val/1.jpg`` is ``val-1``.

    Parameters
    ----------
    face_ids : sequence of str
        All faces of a split: which names are ambiguous does not depend on the faces of a run.

    Returns
    -------
    dict of str to str
        Distinct, in any case of letters, also from another face's name with the number of a draw:
        a digest of the id is added to those that are not.
    """
    names = {i: re.sub(r"[^A-Za-z0-9._-]+", "-", os.path.splitext(i)[0]) for i in face_ids}
    names = {i: name.strip("-.")[:LONGEST] or "face" for i, name in names.items()}
    taken = Counter(name.lower() for name in names.values())

    def ambiguous(name: str) -> bool:
        plain = _NUMBER.sub("", name.lower())
        return taken[name.lower()] > 1 or (plain != name.lower() and plain in taken)

    return {
        i: f"{name}-{hexdigest(i)[:8]}" if ambiguous(name) else name for i, name in names.items()
    }


def pictures_in(folder: Path) -> Iterator[str]:
    """Yield the pictures below a folder, as paths relative to it, in order; links stay inside."""
    root = os.path.realpath(folder)
    for place, folders, files in os.walk(root):
        folders.sort()
        for name in sorted(files):
            path = os.path.join(place, name)
            inside = os.path.realpath(path).startswith(root + os.sep)
            if name.lower().endswith(SUFFIXES) and inside and os.path.isfile(path):
                yield os.path.relpath(path, root)


def folder_sha256(folder: Path) -> str:
    """SHA-256 over the names and contents of all pictures below a folder."""
    digest = hashlib.sha256()
    for name in pictures_in(folder):
        digest.update(f"{file_sha256(folder / name)}  {name}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


class Folder:
    """Answers with the pictures of a folder.

    A face whose pictures are numbered has one for each draw; one that is not serves all draws of
    its face. A missing or unusable picture costs its draw (status ``error``, with the reason).

    Parameters
    ----------
    name : str
        Of the arm.
    folder : Path
    names : mapping of str to str
        From face to the name of its pictures; see `picture_names`.
    settings : sequence of (str, int)
        Conditions and scales of the run. The pictures of a single one may lie in the folder
        itself.
    read : callable

    Raises
    ------
    InputError
        If the folder of a condition and scale is missing, or two pictures have one name.
    """

    promises_feasibility = False
    resolution: int | None = None
    caveats = ("outputs were made elsewhere: its seconds are those of reading them",)

    def __init__(
        self,
        name: str,
        folder: Path,
        names: Mapping[str, str],
        settings: Sequence[tuple[str, int]],
        read: ReadPicture,
    ) -> None:
        self.name, self._folder, self._names, self._read = name, folder, names, read
        # Where the pictures of each setting lie, and their files by name without its end.
        self._places: dict[tuple[str, int], str] = {}
        self._files: dict[str, dict[str, str]] = {}
        # Names of which there are numbered pictures.
        self._numbered: dict[str, set[str]] = {}
        for condition, scale in settings:
            place = setting_folder(condition, scale)
            if not (folder / place).is_dir():
                if len(settings) > 1:
                    raise InputError(
                        f"{name}: {folder} has no folder {place} for condition {condition} at "
                        f"scale {scale}; pulse-audit export-inputs names its folders so"
                    )
                place = ""
            self._places[condition, scale] = place
            files = self._files[place] = self._pictures(place)
            self._numbered[place] = {
                _NUMBER.sub("", stem) for stem in files if _NUMBER.search(stem)
            }

    def _pictures(self, place: str) -> dict[str, str]:
        found: dict[str, str] = {}
        for entry in sorted(os.scandir(self._folder / place), key=lambda entry: entry.name):
            stem, suffix = os.path.splitext(entry.name)
            if suffix.lower() not in SUFFIXES:
                continue
            if stem in found:
                raise InputError(
                    f"{self.name}: {found[stem]!r} and {entry.name!r} in {self._folder / place} "
                    "have one name; keep one of them"
                )
            found[stem] = entry.name
        return found

    def check_outputs(self, face_ids: Sequence[str]) -> None:
        """Raise `InputError` where there is no picture of any of a run's faces."""
        for place, files in self._files.items():
            wanted = [self._names[face_id] for face_id in face_ids]
            if wanted and not (self._numbered[place] | set(files)) & set(wanted):
                raise InputError(
                    f"{self.name}: {self._folder / place} has a picture of none of the run's "
                    f"{len(wanted)} faces, such as {wanted[0]}.png; pulse-audit export-inputs "
                    "writes the inputs under the names that are looked for"
                )

    def __call__(self, requests: Sequence[Request], degradation: Degradation) -> list[Upsampled]:
        """Look every output up."""
        place = self._places[degradation.condition, degradation.scale]
        files, answers = self._files[place], []
        for request in requests:
            started = time.perf_counter()
            name = self._names[request.face_id]
            # A face has the numbered pictures of its draws, or one for all of them.
            numbered = f"{name}_{request.draw + 1}"
            wanted = numbered if name in self._numbered[place] else name
            if wanted not in files:
                missing = f"{name}.png or {numbered}.png" if wanted == name else f"{numbered}.png"
                answers.append(failed(f"no output: {Path(place, missing)} is missing"))
                continue
            shown = str(Path(place, files[wanted]))
            try:
                image = self._read(self._folder, shown)
            except ValueError as error:
                answers.append(failed(f"{shown}: {error}"))
                continue
            answer = judged(image, request, degradation, time.perf_counter() - started)
            answers.append(answer)
        return answers

    def describe(self) -> dict[str, Any]:
        """Return how many pictures there are; the digest over all is that of the arm's file."""
        return {
            "kind": "folder",
            "pictures": {place or ".": len(files) for place, files in self._files.items()},
        }
