"""Networks in OpenVINO's intermediate representation: an XML of layers, and a file of numbers.

Only the constants are read, by name. The graph between them is not interpreted, so nothing in
these files can run; which network the constants belong to is for the layout to say.
"""

from __future__ import annotations

import math
import re
import zipfile
from collections.abc import Mapping
from pathlib import PurePosixPath
from xml.parsers import expat

import torch
from torch import Tensor

from pulse_audit.generators.checkpoints.budget import Damaged, spend
from pulse_audit.generators.checkpoints.pickle_data import MAX_DIMENSIONS
from pulse_audit.generators.checkpoints.torch_archive import read_member

#: The largest description that is read, in bytes; those of the published network take 0.4 MB.
MAX_XML = 2**24
VERSIONS = ("10", "11")
ELEMENT_TYPES = {
    **{"f32": torch.float32, "f16": torch.float16, "f64": torch.float64, "bf16": torch.bfloat16},
    **{"i64": torch.int64, "i32": torch.int32, "i16": torch.int16, "i8": torch.int8},
    **{"u8": torch.uint8, "boolean": torch.bool},
}


class ConstantReader:
    """Collects the constants of a network from its XML, as a stream of elements.

    ``constants`` are type, shape and offset of each, by name.
    """

    def __init__(self, length: int) -> None:
        self.length = length
        self.constants: dict[str, tuple[torch.dtype, tuple[int, ...], int]] = {}
        self._path: list[str] = []
        self._name: str | None = None

    def read(self, xml: bytes) -> None:
        """Read the description; Damaged where it makes no sense or declares a document type."""
        parser = expat.ParserCreate()
        parser.StartElementHandler, parser.EndElementHandler = self._start, self._end
        # Entities, which can grow without bound or name other files, need a document type.
        parser.StartDoctypeDeclHandler = self._refuse_doctype
        try:
            parser.Parse(xml, True)
        except (expat.ExpatError, ValueError, LookupError) as error:
            raise Damaged(f"its XML is broken: {error}") from error

    def _refuse_doctype(self, *declared: object) -> None:
        raise Damaged("its XML declares a document type, which may define entities")

    def _start(self, tag: str, attributes: Mapping[str, str]) -> None:
        spend(objects=1 + len(attributes), depth=len(self._path))
        self._path.append(tag)
        # <net version="10"> <layers> <layer name= type="Const"> <data element_type= shape= ...>
        match self._path:
            case [root]:
                if root != "net" or attributes.get("version") not in VERSIONS:
                    raise Damaged("its XML is no OpenVINO network of version 10 or 11")
            case ["net", "layers", "layer"]:
                constant = attributes.get("type") == "Const"
                self._name = attributes.get("name", "") if constant else None
            case ["net", "layers", "layer", "data"] if self._name is not None:
                self._add(self._name, attributes)

    def _end(self, tag: str) -> None:
        self._path.pop()

    def _add(self, name: str, attributes: Mapping[str, str]) -> None:
        """Keep a constant whose type, shape, offset and size fit together and into the file."""
        if name in self.constants:
            raise Damaged(f"two of its constants are named {name[:60]!r}")
        dtype = ELEMENT_TYPES.get(attributes.get("element_type", ""))
        if dtype is None:
            declared = attributes.get("element_type", "none")[:20]
            raise Damaged(f"its constant {name[:60]!r} has the element type {declared!r}")
        # Sides, offset and size are plain digits, the sides with commas.
        sides = [side.strip() for side in attributes.get("shape", "").split(",", MAX_DIMENSIONS)]
        sides = [] if sides == [""] else sides
        numbers = [*sides, attributes.get("offset", ""), attributes.get("size", "")]
        if len(sides) > MAX_DIMENSIONS or not all(re.fullmatch("[0-9]{1,12}", n) for n in numbers):
            raise Damaged(f"its constant {name[:60]!r} has an impossible shape or place")
        *shape, offset, size = map(int, numbers)
        if math.prod(shape) * dtype.itemsize != size:
            raise Damaged(f"its constant {name[:60]!r} of shape {shape} declares {size:,} bytes")
        if offset + size > self.length:
            raise Damaged(
                f"its constant {name[:60]!r} ends at byte {offset + size:,} of {self.length:,}"
            )
        self.constants[name] = dtype, tuple(shape), offset


def read_constants(xml: bytes, numbers: bytes) -> dict[str, Tensor]:
    """Read the constants of floating-point type of a network, as float32, by name.

    Parameters
    ----------
    xml : bytes
        The description of the layers.
    numbers : bytes
        The file that it points into.

    Raises
    ------
    Damaged
        If the XML is broken, too large, of another kind, or declares a document type; if a
        constant lies outside the file, has an unknown type, or a size that its shape does not
        give; if the budget of the file is used up.
    """
    if len(xml) > MAX_XML:
        raise Damaged(f"its XML has {len(xml):,} bytes, over {MAX_XML:,}")
    reader = ConstantReader(len(numbers))
    reader.read(xml)
    # One writable copy, which torch can view.
    buffer, out = bytearray(numbers), {}
    for name, (dtype, shape, offset) in reader.constants.items():
        if not dtype.is_floating_point:
            continue
        count = math.prod(shape)
        # Many names can point to the same bytes, so every copy is counted.
        spend(objects=1, size=count * max(4, dtype.itemsize))
        flat = torch.empty(0, dtype=dtype)
        if count:
            flat = torch.frombuffer(buffer, dtype=dtype, count=count, offset=offset)
        out[name] = flat.to(torch.float32, copy=True).reshape(shape)
    return out


def find_networks(members: zipfile.ZipFile) -> dict[str, str]:
    """Return the networks of an archive: the stem of each XML and .bin pair to its path."""
    names = set(members.namelist())
    paths = [PurePosixPath(name) for name in names if name.endswith(".xml")]
    return {p.stem: str(p.with_suffix("")) for p in paths if str(p.with_suffix(".bin")) in names}


def read_network(members: zipfile.ZipFile, path: str) -> dict[str, Tensor]:
    """Read the constants of one network of an archive; see `read_constants`."""
    return read_constants(read_member(members, f"{path}.xml"), read_member(members, f"{path}.bin"))
