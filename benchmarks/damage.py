"""Damage to files, by their structure: lines, JSON trees, archive members, opcodes, columns.

Every function takes sound bytes and a source of random numbers, and returns damaged bytes.
"""

import contextlib
import functools
import io
import json
import pickletools
import random
import struct
import sys
import warnings
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

#: A hostile pickle makes this file, in the folder it is read from, if anything executes it.
CANARY = "executed"
#: Values that stand in JSON in the place of others.
SCALARS: list[Any] = [
    None, True, -1, 0, 2**31, 2**63, 10**30, 10**4000, 1e308, float("nan"), float("inf"), "", "\0",
    "NaN", "../../x", "/etc/passwd", "~nobody/x", "\u0661\u0662", "<script>", "=1+1", "x" * 5000,
    "2001-99-99", [], {}, [[]], {"": {}},
]  # fmt: skip
#: Nine lists, each of nine references to the one before it.
ALIAS_BOMB = b"a: &a [x,x,x,x,x,x,x,x,x]\n" + b"".join(
    b"%c: &%c [%s]\n" % (c, c, b",".join([b"*%c" % (c - 1)] * 9)) for c in b"bcdefghij"
)
#: Words that stand in text in the place of others.
TOKENS: list[bytes] = [
    b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b'"', b"'", b",", b"\n", b"\r", b": ", b"- ", b"{", b"[",
    b"9" * 5000, b"-1", b".nan", b"1e999", b"2001-99-99", b"!!int abc", b"!!python/object:os.x {}",
    b"!!binary x", b"*nobody", b"&a [*a]", b"<<: *a", b"? ", b"|", b"%TAG", b"---\n", b"=1+1",
    b"x" * 100_000, b"[" * 30_000, b"{a: " * 5_000, b"- " * 20_000, "\uff11\uff12".encode(),
    ALIAS_BOMB,
]  # fmt: skip
#: Opcodes that stand in a pickle: code to run, memo numbers, markers, lengths, cycles.
OPCODES: list[bytes] = [
    b"cposix\nsystem\n(S'touch %s'\ntR" % CANARY.encode(), b"cbuiltins\neval\n", b"ia\nb\n",
    b"\x82\x01", b"\x8b\xff\xff\xff\x7f1", b"\x8e" + b"\xff" * 8, b"I" + b"9" * 5000 + b"\n",
    b"]" + b"2" * 5000, b"(" * 50_000, b"]\x85" + b"\x85" * 20_000, b"0" * 50, b"h\xff", b"R", b"b",
    b"]q\0h\0a", b"}q\0h\0h\0s", b"P1\n",
]  # fmt: skip


def damaged_bytes(data: bytes, rng: random.Random) -> bytes:
    """Flip, cut, repeat or overwrite a few stretches of bytes."""
    out = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 5])):
        # Formats keep their structure at both ends, so half of the damage is done there.
        ends = [rng.randrange(min(200, len(out) or 1)), max(0, len(out) - 1 - rng.randrange(200))]
        at = rng.choice([*ends, rng.randrange(len(out) or 1), rng.randrange(len(out) or 1)])
        stretch = rng.choice([1, 1, 2, 4, 8, 64])
        way = rng.randrange(6)
        if way == 0:
            out[at : at + 1] = bytes([rng.randrange(256)])
        elif way == 1:
            out[at : at + 4] = struct.pack("<I", rng.choice([0, 1, 2**16, 2**31 - 1, 2**32 - 1]))
        elif way == 2:
            del out[at : at + stretch]
        elif way == 3:
            out[at:at] = out[at : at + stretch] * rng.choice([1, 2, 100])
        elif way == 4:
            out[at : at + stretch] = rng.randbytes(stretch)
        elif rng.random() < 0.3:
            del out[at:]
    return bytes(out)


def damaged_text(data: bytes, rng: random.Random) -> bytes:
    """Change lines and words of a table or of YAML; sometimes single bytes."""
    lines = data.split(b"\n")
    for _ in range(rng.choice([1, 1, 2, 4])):
        at, token = rng.randrange(len(lines)), rng.choice(TOKENS)
        way = rng.randrange(7)
        if way == 0:
            lines.insert(at, lines[rng.randrange(len(lines))])
        elif way == 1 and len(lines) > 1:
            del lines[at]
        elif way == 2:
            lines.insert(at, token)
        elif way == 3:
            lines[at] += token
        elif way == 4:  # the value behind a colon or a comma
            for mark in (b": ", b","):
                if mark in lines[at]:
                    lines[at] = lines[at].rsplit(mark, 1)[0] + mark + token
        elif way == 5:
            lines[at] = lines[at].replace(rng.choice([b" ", b",", b":", b"-", b'"']), token, 1)
        else:
            lines[at] = damaged_bytes(lines[at], rng)
    return b"\n".join(lines)


def damaged_json(data: bytes, rng: random.Random) -> bytes:
    """Replace, remove, repeat or nest values of a JSON tree."""
    if rng.random() < 0.15:
        return damaged_text(data, rng)
    tree = {"root": json.loads(data)}
    for _ in range(rng.choice([1, 1, 2, 4])):
        # Walk down to a random value and its holder.
        holder: Any = tree
        key: Any = "root"
        while isinstance(holder[key], dict | list) and holder[key] and rng.random() < 0.85:
            holder = holder[key]
            key = (
                rng.choice(list(holder)) if isinstance(holder, dict) else rng.randrange(len(holder))
            )
        way = rng.randrange(6)
        if way <= 2:
            holder[key] = rng.choice(SCALARS)
        elif way == 3 and holder is not tree:
            del holder[key]
        elif way == 4 and isinstance(holder, list):
            holder += holder[:] * rng.choice([1, 3])
        elif isinstance(holder[key], int | float):
            holder[key] *= rng.choice([-1, 1000, 10**9])
    # Deep nesting cannot be dumped, so it takes the place of a marker.
    if rng.random() < 0.05:
        if isinstance(holder, list) and key >= len(holder):
            holder.append(None)
            key = len(holder) - 1
        holder[key] = "deep"
    limit = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    try:
        text = json.dumps(tree.get("root"))
    finally:
        sys.set_int_max_str_digits(limit)
    return text.replace('"deep"', "[" * 50_000 + "]" * 50_000).encode()


def damaged_zip(data: bytes, rng: random.Random, change: Callable[..., bytes]) -> bytes:
    """Change, drop, repeat, rename or inflate a member; sometimes bytes of the archive itself."""
    if rng.random() < 0.3:
        return damaged_bytes(data, rng)
    sink = io.BytesIO()
    warnings.simplefilter("ignore")  # of members with one name
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(sink, "w") as new:
        names = old.namelist()
        victim, way = rng.choice(names), rng.randrange(10)
        for name in names:
            content = old.read(name)
            if name != victim:
                new.writestr(name, content)
            elif way <= 5:
                new.writestr(name, change(content, rng))
            elif way == 6:
                new.writestr(
                    rng.choice(["../" + name, "/" + name, name.upper(), "x" * 60_000]), content
                )
            elif way == 7:
                for part in (content, content[::-1]):
                    new.writestr(name, part)
            elif way == 8:
                data, checksum = zeros()
                new.writestr(name, data)
                info = new.getinfo(name)
                info.compress_type, info.file_size = zipfile.ZIP_DEFLATED, 3 << 30
                info.CRC = checksum
            # else it is dropped
    return sink.getvalue()


@functools.cache
def zeros() -> tuple[bytes, int]:
    """Return 3 GB of zeros, deflated to 3 MB, and their checksum."""
    packer, million = zlib.compressobj(9, zlib.DEFLATED, -15), bytes(1 << 20)
    block = packer.compress(million) + packer.flush(zlib.Z_FULL_FLUSH)
    checksum = 0
    for _ in range(3 << 10):
        checksum = zlib.crc32(million, checksum)
    return block * (3 << 10) + b"\x03\x00", checksum


def damaged_pickle(data: bytes, rng: random.Random) -> bytes:
    """Remove, repeat, swap or add opcodes of the first pickle in a file."""
    with contextlib.suppress(Exception):
        starts = [at for _, _, at in pickletools.genops(data) if at is not None]
        pieces = [data[a:b] for a, b in zip(starts, [*starts[1:], starts[-1] + 1], strict=True)]
        rest = data[starts[-1] + 1 :]
        for _ in range(rng.choice([1, 1, 2, 4])):
            at, other = rng.randrange(1, len(pieces)), rng.randrange(1, len(pieces))
            way = rng.randrange(5)
            if way == 0:
                del pieces[at]
            elif way == 1:
                pieces[at:at] = pieces[at : at + rng.choice([1, 3])] * rng.choice([1, 1000])
            elif way == 2:
                pieces[at], pieces[other] = pieces[other], pieces[at]
            elif way == 3:
                pieces.insert(at, rng.choice(OPCODES))
            else:
                pieces[at] = pieces[at][:1] + damaged_bytes(pieces[at][1:], rng)
        return b"".join(pieces) + rest
    return damaged_bytes(data, rng)


def damaged_safetensors(data: bytes, rng: random.Random) -> bytes:
    """Damage the JSON header, its length, or bytes."""
    length = int.from_bytes(data[:8], "little")
    if rng.random() < 0.3:
        return damaged_bytes(data, rng)
    header = damaged_json(data[8 : 8 + length], rng)
    stated = rng.choice([len(header)] * 6 + [0, 1, 2**40, 2**63, 2**64 - 1])
    return stated.to_bytes(8, "little") + header + data[8 + length :]


def damaged_npy(data: bytes, rng: random.Random) -> bytes:
    """Let the header of an array state another type or shape."""
    old = rng.choice([b"'<f4'", b"(", b"False", b"{", b", "])
    new = [
        b"'|O8'",
        b"'<U9999'",
        b"'<f8'",
        b"(-1, ",
        b"(9" + b"9" * 30 + b", ",
        b"(" * 400,
        b"True",
    ]
    return data.replace(old, rng.choice(new), 1) if rng.random() < 0.6 else damaged_bytes(data, rng)


def damaged_image(data: bytes, rng: random.Random) -> bytes:
    """Damage bytes; in a PNG, let a header with a right checksum state another size."""
    if data[:4] == b"\x89PNG" and rng.random() < 0.4:
        sizes = [0, 1, 9_000, 60_000, 2**31 - 1]
        head = b"IHDR" + struct.pack(">II", rng.choice(sizes), rng.choice(sizes)) + data[24:29]
        return data[:12] + head + struct.pack(">I", zlib.crc32(head)) + data[33:]
    return damaged_bytes(data, rng)


def damaged_shard(data: bytes, rng: random.Random) -> bytes:
    """Change columns and rows of a Parquet table, or bytes of the file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if rng.random() < 0.4:
        return damaged_bytes(data, rng)
    table = pq.read_table(io.BytesIO(data))
    for _ in range(rng.choice([1, 1, 3])):
        at, rows = rng.randrange(table.num_columns), table.num_rows
        name = table.column_names[at]
        values: list[Any] = [
            *(["text"] * rows, [None] * rows, [1e308] * rows, [float("inf")] * rows, [-1] * rows),
            *([[float("nan")]] * rows, [[0.5] * 999] * rows, ["\0" * 50] * rows, [b"\xff"] * rows),
            [{"a": 1}] * rows,
        ]
        way = rng.randrange(5)
        if way <= 2:
            table = table.set_column(at, name, pa.array(rng.choice(values)))
        elif way == 3:
            table = table.remove_column(at) if table.num_columns > 1 else table
        else:
            table = (
                pa.concat_tables([table] * rng.choice([2, 50])) if rng.random() < 0.7 else table[:0]
            )
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


def damaged_torch_zip(data: bytes, rng: random.Random) -> bytes:
    return damaged_zip(data, rng, damaged_pickle)


def damaged_program(data: bytes, rng: random.Random) -> bytes:
    def change(content: bytes, rng: random.Random) -> bytes:
        return damaged_json(content, rng) if content[:1] == b"{" else damaged_pickle(content, rng)

    return damaged_zip(data, rng, change)


def damaged_features(data: bytes, rng: random.Random) -> bytes:
    return damaged_zip(data, rng, damaged_npy)
