"""Outputs that were made elsewhere, in files: ``folder:DIR``.

``pulse-audit export-inputs`` writes the inputs of a run under the names by which their outputs are
found again: a folder for every condition and scale, in it a file for every face. An output has the
name of its input, in any raster format; where a method answers a face several times, the draws end
in ``_1``, ``_2``, and so on, or are counted from ``_0``. Programs that name or nest their outputs
in another way are read with a pattern: ``folder:DIR/{setting}/faces/{name}_00.png``.
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
from pulse_audit.names import FOLDER, NAME, SETTING, OutputPattern
from pulse_audit.seeding import hexdigest
from pulse_audit.types import Degradation, InputError, Request, Upsampled
from pulse_audit.upsamplers.outputs import ReadPicture, failed, judged

#: Ends of the names of pictures.
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".ppm")
#: Longest name of a picture without its end; file systems take 255 bytes.
LONGEST = 120
_NUMBER = re.compile(r"_[0-9]{1,5}$")
#: The number of a draw, as it stands; ``_00`` is something else, such as a face in a photo.
_DRAW = re.compile(r"_(0|[1-9][0-9]{0,4})$")


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
    its face. Numbers count from 1, or from 0 where a picture of a setting has that number. A
    missing or unusable picture costs its draw (status ``error``, with the reason).

    Parameters
    ----------
    name : str
        Of the arm.
    pattern : OutputPattern
        Where the pictures lie, and how their names are made.
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
        pattern: OutputPattern,
        names: Mapping[str, str],
        settings: Sequence[tuple[str, int]],
        read: ReadPicture,
    ) -> None:
        self.name, self._pattern, self._names, self._read = name, pattern, names, read
        # Where the pictures of each setting lie, and their files by the name of the input.
        self._places: dict[tuple[str, int], str] = {}
        self._files: dict[str, dict[str, str]] = {}
        # Names of which there are numbered pictures, and the number of the first draw.
        self._numbered: dict[str, set[str]] = {}
        self._first: dict[str, int] = {}
        for condition, scale in settings:
            place = self._place(condition, scale, alone=len(settings) == 1)
            self._places[condition, scale] = place
            files = self._files[place] = self._pictures(place)
            self._numbered[place] = {_DRAW.sub("", stem) for stem in files if _DRAW.search(stem)}
            from_zero = any(f"{face}_0" in files for face in names.values())
            self._first[place] = 0 if from_zero else 1

    def _place(self, condition: str, scale: int, *, alone: bool) -> str:
        """Return the folder of a condition and scale, below that of all outputs."""
        root, setting = self._pattern.root, setting_folder(condition, scale)
        place = (self._pattern.place or SETTING).replace(SETTING, setting)
        if (root / place).is_dir():
            return place
        if alone and not self._pattern.place:
            return ""
        raise InputError(
            f"{self.name}: {root} has no folder {place} for condition {condition} at scale "
            f"{scale}; pulse-audit export-inputs names its folders {setting}"
        )

    def _pictures(self, place: str) -> dict[str, str]:
        """Return the files of a folder whose names have the form, by the name of their input."""
        folder, file = self._pattern.root / place, self._pattern.file
        before, after = map(re.escape, file.split(NAME))
        form, has_end = re.compile(f"{before}(.+){after}"), file.lower().endswith(SUFFIXES)
        found: dict[str, str] = {}
        for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
            stem, suffix = os.path.splitext(entry.name)
            match = form.fullmatch(entry.name if has_end else stem)
            if match is None or suffix.lower() not in SUFFIXES:
                continue
            if match[1] in found:
                raise InputError(
                    f"{self.name}: {found[match[1]]!r} and {entry.name!r} in {folder} have one "
                    "name; keep one of them"
                )
            found[match[1]] = entry.name
        return found

    def check_outputs(self, face_ids: Sequence[str]) -> None:
        """Raise `InputError` where there is no picture of any of a run's faces."""
        wanted = [self._names[face_id] for face_id in face_ids]
        for place, files in self._files.items():
            if not wanted or (self._numbered[place] | set(files)) & set(wanted):
                continue
            folder = self._pattern.root / place
            present = min((entry.name for entry in os.scandir(folder)), default="nothing")
            raise InputError(
                f"{self.name}: {folder} has a picture of none of the run's {len(wanted)} faces, "
                f"such as {self._file(wanted[0])}, but {present}; pulse-audit export-inputs "
                "writes the inputs under the names that are looked for, and a pattern such as "
                f"{FOLDER}DIR/{SETTING}/{NAME}_00.png finds names with something added"
            )

    def _file(self, name: str) -> str:
        """Return the name of a file, as it may be."""
        file = self._pattern.file.replace(NAME, name)
        return file if file.lower().endswith(SUFFIXES) else f"{file}.png"

    def __call__(self, requests: Sequence[Request], degradation: Degradation) -> list[Upsampled]:
        """Look every output up."""
        place = self._places[degradation.condition, degradation.scale]
        files, answers = self._files[place], []
        for request in requests:
            started = time.perf_counter()
            name = self._names[request.face_id]
            # A face has the numbered pictures of its draws, or one for all of them.
            numbered = f"{name}_{request.draw + self._first[place]}"
            wanted = numbered if name in self._numbered[place] else name
            if wanted not in files:
                either = dict.fromkeys([self._file(wanted), self._file(numbered)])
                missing = Path(place, " or ".join(either))
                answers.append(failed(f"no output: {missing} is missing"))
                continue
            shown = str(Path(place, files[wanted]))
            try:
                image = self._read(self._pattern.root, shown)
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
