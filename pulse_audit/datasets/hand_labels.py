"""People's labels of outputs of a run: a CSV from outside, in the words of the data set."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from pulse_audit.datasets.tables import LabelTable, parse_csv, read_text
from pulse_audit.names import nearest
from pulse_audit.seeding import sha256
from pulse_audit.types import InputError

#: Largest file in bytes: two hundred thousand outputs.
MAX_BYTES = 2**25
#: The column that names the output.
IMAGE = "image"


def read_hand_labels(
    path: Path, images: Collection[str], vocabulary: Mapping[str, Sequence[str]]
) -> tuple[dict[str, dict[str, str]], str]:
    """Read people's labels of outputs.

    Parameters
    ----------
    path : Path
        CSV with the column ``image`` and one column an attribute.
    images : collection of str
        The outputs that can be labelled: paths relative to the run, as in the samples.
    vocabulary : mapping of str to sequence of str
        Words of each attribute.

    Returns
    -------
    labels : dict
        By image: attribute -> word. An empty cell is no label.
    digest : str
        SHA-256 of the file as it was read.

    Raises
    ------
    InputError
        One line naming the file and the row: besides what `read_csv` refuses, a file of more than
        32 MiB, a column or a word that is not known, an image that the run has not or that stands
        there twice, and a file without any label.
    """
    text = read_text(path, MAX_BYTES)
    table = parse_csv(path, text)
    _check_columns(table, vocabulary)
    columns = {name: place for place, name in enumerate(table.header)}
    known, labels = set(images), dict[str, dict[str, str]]()
    for number, row in enumerate(table.rows, start=2):
        where, image = f"{path}, row {number}", row[columns[IMAGE]].strip()
        if image in labels:
            raise InputError(f"{where}: {image!r} is labelled twice; keep one row")
        if image not in known:
            raise InputError(
                f"{where}: {image!r:.200} is no output that this run keeps; copy the column image "
                "of its samples (--keep-images all keeps every output)"
            )
        labels[image] = {}
        for attribute in (name for name in table.header if name != IMAGE):
            word, words = row[columns[attribute]].strip(), vocabulary[attribute]
            if word and word not in words:
                hint = nearest(word[:80], words)
                raise InputError(f"{where}: {attribute} {word!r:.80} is unknown{hint}")
            if word:
                labels[image][attribute] = word
    if not any(labels.values()):
        raise InputError(f"{path}: labels no output; fill in a column")
    return labels, sha256(text.encode())


def _check_columns(table: LabelTable, vocabulary: Mapping[str, Sequence[str]]) -> None:
    """Refuse a table without images, without an attribute, or with a column that is neither."""
    where = f"{table.path}, row 1"
    if IMAGE not in table.header:
        raise InputError(f"{where}: no column 'image', the outputs' paths as in the samples")
    others = [name for name in table.header if name != IMAGE]
    for name in others:
        if name not in vocabulary:
            hint = nearest(name[:80], list(vocabulary))
            raise InputError(f"{where}: column {name!r:.80} is no label of this data set{hint}")
    if not others:
        known = ", ".join(vocabulary)
        raise InputError(f"{where}: no column of labels beside 'image'; known: {known}")
