"""``torch.export`` programs (``.pt2``): a graph of known operators, its weights, nothing else.

A program is code, but in a closed language. ``torch.export.load`` itself is no safe reader: it
falls back to full unpickling, evaluates symbolic sizes as Python, and writes names from the file
into source text. So the archive is looked at first, and whatever a plain export does not contain
is refused unless the user vouches for the file by its SHA-256.
"""

from __future__ import annotations

import io
import logging
import re
import zipfile
from logging.handlers import BufferingHandler
from pathlib import PurePosixPath
from typing import Any, Self

import torch
from torch import Tensor, nn

from pulse_audit.documents import parse_json
from pulse_audit.generators.checkpoints.budget import Damaged, spend
from pulse_audit.generators.checkpoints.operators import allowed
from pulse_audit.generators.checkpoints.torch_archive import (
    ZIP_START,
    archive,
    read_archive,
    read_member,
    read_stream,
)
from pulse_audit.generators.checkpoints.trial import try_program
from pulse_audit.types import InputError

# The members of an archive: labels, the graph, the lists of weights, the numbers, and pickles.
LABEL = re.compile(r"archive_format|archive_version|byteorder|version|\.data/\w+")
PROGRAM = re.compile(r"models/[\w.]+\.json|serialized_exported_program\.json")
CONFIG = re.compile(r"data/(?:weights|constants)/[\w.]+_config\.json")
PAYLOAD = re.compile(r"data/(weights|constants)/((?:weight|tensor)_\d+)")
PICKLE = re.compile(
    r"data/sample_inputs/[\w.]+\.pt|serialized_(?:state_dict|constants|example_inputs)\.pt"
)

# Bounds on a description (JSON), on integers in it, and on the numbers of one tensor.
MAX_DESCRIPTION = 2**25
MAX_INTEGER = 2**63
MAX_NUMBERS = 2**31
# Sizes as sympy writes them. No powers, shifts or numbers over 64 bits: a few digits of them could
# fill the memory.
EXPRESSION = re.compile(
    r"(?:[\s()+,.=-]|(?<!\d)\d{1,18}(?!\d)|<(?!<)|>(?!>)|\*(?!\*)|//?|'[su]\d+'|\b[su]\d+\b|\b(?:Symbol|Integer|Rational|Add|Mul|Max"
    r"|Min|Mod|FloorDiv|CeilDiv|PythonMod|IntTrueDiv|ToFloat|Eq|Ne|Lt|Le|Gt|Ge|True|False|positive"
    r"|nonnegative|integer|real)\b)*"
)
MAX_EXPRESSION = 1000
WORD = re.compile(r"[\w.\-]*")
# The equation of an einsum.
EQUATION = re.compile(r"[\w.\-]*|[A-Za-z,. ]*->[A-Za-z. ]*")
# What the texts of a graph may be; all others are a WORD.
TEXTS = {"expr_str": EXPRESSION, "as_string": EQUATION}
CONTAINERS = (None, "builtins.tuple", "builtins.list", "builtins.dict")
CONTEXT = re.compile(r'null|\[(?:"\w+"(?:, )?)*\]')
# Entries of a graph that hold code or objects of other libraries.
NEVER = ("as_operator", "as_custom_obj", "as_graph", "guards_code", "treespec_namedtuple_fields")


class ExportedDecoder(nn.Module):
    """An exported program from latents (n, latent_dim) to images (n, 3, R, R).

    It runs in the precision it was exported in. A program exported for a fixed batch is run batch
    by batch, the last one filled up with zeros.
    """

    def __init__(self, program: torch.export.ExportedProgram):
        super().__init__()
        self.program = program.module().requires_grad_(False)
        # The one input is (batch, latent_dim); "val" says so without values.
        names = program.graph_signature.user_inputs
        inputs = [node.meta.get("val") for node in program.graph.nodes if node.name in names]
        shape: Any = getattr(inputs[0], "shape", ()) if len(inputs) == 1 else ()
        if len(shape) != 2 or not isinstance(shape[1], int):
            raise InputError("the program takes something other than latents (n, latent_dim)")
        latents: Any = inputs[0]
        self.dtype, self.latent_dim = latents.dtype, int(latents.shape[1])
        self.batch = latents.shape[0] if isinstance(latents.shape[0], int) else None

    def forward(self, z: Tensor) -> Tensor:
        """Map latents (n, latent_dim) to images (n, 3, R, R)."""
        z = z.to(self.dtype)
        if self.batch is None:
            out: Tensor = self.program(z)
            return out
        # Fill up the last batch with zeros, and drop their images.
        missing = -len(z) % self.batch
        padded = torch.cat([z, z.new_zeros(missing, z.shape[1])])
        starts = range(0, len(padded), self.batch)
        parts = [self.program(padded[start : start + self.batch]) for start in starts]
        return torch.cat(parts)[: len(z)]

    def train(self, mode: bool = True) -> Self:
        """Change nothing: the mode is part of the program."""
        return self

    def to(  # type: ignore[override]
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> Self:
        """Move to a device; the precision is part of the program, whatever ``dtype`` says."""
        return self if device is None else super().to(device=device)


def is_program(members: zipfile.ZipFile) -> bool:
    """Tell whether an archive is a ``torch.export`` program."""
    return any(PROGRAM.fullmatch(_inner(name)) for name in members.namelist())


def load_program(data: bytes, trusted: bool) -> ExportedDecoder:
    """Load a program from the bytes of its file.

    Unless the user vouched for this very file (``trusted``), it is looked through first: Damaged if
    it contains anything that could run as Python, or does not load.
    """
    if not trusted:
        with archive(io.BytesIO(data)) as members:
            check_program(members)
        try_program(data)
    return read_program(data)


def read_program(data: bytes) -> ExportedDecoder:
    """Let PyTorch read a program; Damaged if it cannot."""
    # PyTorch logs the error that it met, and raises one that says no more than that it did.
    kept, logs = BufferingHandler(1000), [logging.getLogger(n) for n in ("torch", "torch.export")]
    handlers = [log.handlers for log in logs]
    for log in logs:
        log.handlers = [kept]
    try:
        program = torch.export.load(io.BytesIO(data))
        return ExportedDecoder(program)
    except InputError:
        raise
    except Exception as error:  # whatever a broken graph provokes in PyTorch
        logged = [record.exc_info[1] for record in kept.buffer if record.exc_info]
        raise Damaged(f"torch.export cannot load it: {[*logged, error][0]}") from error
    finally:
        for log, own in zip(logs, handlers, strict=True):
            log.handlers = own


def check_program(members: zipfile.ZipFile) -> None:
    """Refuse an archive with anything that could run as Python: Damaged, naming the member."""
    names = {_inner(name): name for name in members.namelist()}
    pickled = set[str]()
    for inner, name in names.items():
        if PICKLE.fullmatch(inner):
            pickled.add(inner)
        elif CONFIG.fullmatch(inner) or PROGRAM.fullmatch(inner):
            if members.getinfo(name).file_size > MAX_DESCRIPTION:
                raise Damaged(f"its member {name!r} has over {MAX_DESCRIPTION:,} bytes")
            try:
                content = parse_json(read_member(members, name), name)
                if PROGRAM.fullmatch(inner):
                    _check_graph(content, "")
                else:
                    _check_sizes(content)
                    pickled |= _pickled_payloads(content, inner)
            except InputError as error:
                raise Damaged(f"its member is no JSON of a graph: {error}") from error
        elif not (LABEL.fullmatch(inner) or PAYLOAD.fullmatch(inner)):
            raise Damaged(f"its member {inner!r} is neither description nor numbers")
    # A pickle has to be one that weights_only=True loads and that declares no more than it holds.
    for inner in pickled & names.keys():
        data = read_member(members, names[inner])
        try:
            if data.startswith(ZIP_START):
                with archive(io.BytesIO(data)) as inside:
                    read_archive(inside)
            elif data:
                read_stream(io.BytesIO(data))
            if data:
                torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        except Exception as error:  # torch.load raises whatever a broken file provokes
            raise Damaged(f"its member {inner!r} is a pickle of more than tensors") from error


def _pickled_payloads(config: Any, inner: str) -> set[str]:
    """Return the members a config wants unpickled; Damaged for entries of any other kind."""
    # A config is {"config": {name: {path_name, use_pickle, ...}}}.
    folder = str(PurePosixPath(inner).parent)
    entries = config.get("config") if isinstance(config, dict) else None
    if not isinstance(entries, dict):
        raise Damaged(f"its member {inner!r} is no list of weights")
    out = set()
    for entry in entries.values():
        path = f"{folder}/{entry.get('path_name')}" if isinstance(entry, dict) else ""
        if not PAYLOAD.fullmatch(path):
            raise Damaged(f"its member {inner!r} refers to something other than weights")
        if entry.get("use_pickle") is not False:
            out.add(path)
    return out


def _inner(name: str) -> str:
    """Drop the folder all members of an archive are in."""
    first, _, rest = name.partition("/")
    known = (LABEL, PROGRAM, CONFIG, PAYLOAD, PICKLE)
    return name if any(pattern.fullmatch(name) for pattern in known) else rest or first


def _check_graph(value: Any, key: str) -> None:
    """Walk through the description of a graph; every text must be of its closed kind."""
    # Every entry has a type of its own, and what is not on a closed list is refused.
    spend(objects=1)
    if key in NEVER and value:
        raise Damaged(f"its graph uses {key}")
    if isinstance(value, int) and abs(value) > MAX_INTEGER:
        raise Damaged("its graph has an integer of over 64 bits")
    if isinstance(value, dict):
        _check_numbers(value.get("sizes"))
        for name, child in value.items():
            _check_text(name, "", WORD)
            _check_graph(child, key if key == "metadata" else name)
    elif isinstance(value, list):
        for child in value:
            _check_graph(child, key)
    elif isinstance(value, str):
        if key in ("metadata", "torch_version"):
            # Metadata may reach comments in source text, where a line end would end the comment.
            if not value.replace("\n", "").isprintable():
                raise Damaged("its metadata has control characters")
        elif key in ("in_spec", "out_spec"):
            _check_containers(value, key)
        elif key == "target" and not allowed(value):
            raise Damaged(f"its operator {value[:80]!r} is not one of image networks")
        elif key == "expr_str" and len(value) > MAX_EXPRESSION:
            raise Damaged("its graph has an endless expression")
        else:
            _check_text(value, key, TEXTS.get(key, WORD))


def _check_sizes(value: Any) -> None:
    """Look at the sizes of all tensors in a list of weights."""
    spend(objects=1)
    if isinstance(value, dict):
        _check_numbers(value.get("sizes"))
        value = list(value.values())
    for child in value if isinstance(value, list) else ():
        _check_sizes(child)


def _check_numbers(sizes: Any) -> None:
    """Refuse a tensor whose fixed sizes multiply to more than an image network needs."""
    count = 1
    for size in sizes if isinstance(sizes, list) else ():
        length = size.get("as_int") if isinstance(size, dict) else None
        count *= length if isinstance(length, int) else 1
        if not 0 <= count <= MAX_NUMBERS:
            raise Damaged(f"its graph has a tensor of over {MAX_NUMBERS:,} numbers")


def _check_containers(text: str, key: str) -> None:
    """Nesting of inputs and outputs: tuples, lists and dicts only."""
    try:
        # A tree specification is [version, root], each node with a type and its children.
        pending = [parse_json(text.encode(), key)[1]] if text else []
        while pending:
            spec = pending.pop()
            if spec["type"] not in CONTAINERS:
                raise Damaged(f"its graph returns a {spec['type']!r}")
            _check_text(spec["context"] or "null", key, CONTEXT)
            pending.extend(spec["children_spec"])
    except (InputError, LookupError, TypeError) as error:
        raise Damaged(f"its graph has a broken {key}") from error


def _check_text(text: Any, key: str, pattern: re.Pattern[str]) -> None:
    if not isinstance(text, str) or not pattern.fullmatch(text):
        raise Damaged(f"its graph has a {key or 'key'} that no plain export writes: {text!r}")
