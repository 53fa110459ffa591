"""Files that nobody writes by accident: each states or does one thing that ought to be refused.

``ONNX`` and ``PARQUET`` map what a file does to a function that writes it. Checkpoints of this kind
are those of ``tests/generators/checkpoints/test_bombs.py``.
"""

import io
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

# --- ONNX: what a model may hold beside the operators of a network ---


def onnx_model(nodes: Sequence[Any] = (), **parts: Any) -> Any:
    """A classifier of 8 px images in whose graph, weights or functions something is added."""
    import onnx
    from onnx import TensorProto, helper

    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, 8, 8])
    outputs = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in ("logits", "plain")
    ]
    network = [
        helper.make_node("GlobalAveragePool", ["image"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["plain"]),
    ]
    ends = [] if any("logits" in node.output for node in nodes) else ["plain"]
    network += [*nodes, *(helper.make_node("Identity", [name], ["logits"]) for name in ends)]
    graph = helper.make_graph(network, "net", [image], outputs, parts.get("initializer", []))
    domains = [helper.make_opsetid("", 17), helper.make_opsetid("other", 1)]
    functions = parts.get("functions", [])
    model = helper.make_model(graph, opset_imports=domains, functions=functions, ir_version=8)
    assert isinstance(model, onnx.ModelProto)
    return model


def stated(dims: Sequence[int], raw: bytes = bytes(4), **external: str) -> Any:
    """A weight that states a shape, with the bytes or the place in another file that it gives."""
    from onnx import TensorProto

    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=dims)
    if not external:
        tensor.raw_data = raw
        return tensor
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in external.items():
        tensor.external_data.add(key=key, value=value)
    return tensor


def constant(name: str, values: Sequence[float], integers: bool = True) -> Any:
    from onnx import TensorProto, helper

    kind = TensorProto.INT64 if integers else TensorProto.FLOAT
    tensor = helper.make_tensor(name, kind, [len(values)], values)
    return helper.make_node("Constant", [], [name], value=tensor)


def filling(operator: str, shape: Sequence[int]) -> Any:
    """A model whose answer has a shape of billions."""
    from onnx import helper

    given = ["size"] if operator == "ConstantOfShape" else ["plain", "size"]
    big = helper.make_node(operator, given, ["big"])
    least = helper.make_node("ReduceMax", ["big"], ["least"], keepdims=1)
    total = helper.make_node("Add", ["plain", "least"], ["logits"])
    return onnx_model([constant("size", shape), big, least, total])


def weighing(tensor: Any) -> Any:
    """A model that adds a stated weight to its logits."""
    from onnx import helper

    return onnx_model([helper.make_node("Add", ["plain", "w"], ["logits"])], initializer=[tensor])


def endless_loop(trips: int, growing: bool) -> Any:
    """A loop that goes on as good as for ever, or doubles what it carries."""
    from onnx import TensorProto, helper

    info = helper.make_tensor_value_info
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["on"], ["still"]),
            helper.make_node("Concat", ["x", "x"], ["y"], axis=1)
            if growing
            else helper.make_node("Sin", ["x"], ["y"]),
        ],
        "body",
        [
            info("i", TensorProto.INT64, []),
            info("on", TensorProto.BOOL, []),
            info("x", TensorProto.FLOAT, None),
        ],
        [info("still", TensorProto.BOOL, []), info("y", TensorProto.FLOAT, None)],
    )
    true = helper.make_tensor("true", TensorProto.BOOL, [], [True])
    most = helper.make_tensor("most", TensorProto.INT64, [], [trips])
    return onnx_model(
        [
            helper.make_node("Constant", [], ["true"], value=true),
            helper.make_node("Constant", [], ["most"], value=most),
            helper.make_node("Loop", ["most", "true", "plain"], ["logits"], body=body),
        ]
    )


def doubled_functions(depth: int, itself: bool = False) -> Any:
    """Functions that each call the next one twice: 2**depth nodes once they are written out."""
    from onnx import helper

    domains = [helper.make_opsetid("", 17), helper.make_opsetid("other", 1)]
    functions = []
    for level in range(depth):
        inner = f"f{level if itself else level + 1}"
        nodes = [
            helper.make_node(inner, ["x"], ["a"], domain="other"),
            helper.make_node(inner, ["a"], ["y"], domain="other"),
        ]
        functions.append(helper.make_function("other", f"f{level}", ["x"], ["y"], nodes, domains))
    if not itself:
        sine = [helper.make_node("Sin", ["x"], ["y"])]
        functions.append(helper.make_function("other", f"f{depth}", ["x"], ["y"], sine, domains))
    call = helper.make_node("f0", ["plain"], ["logits"], domain="other")
    return onnx_model([call], functions=functions)


def external_in_function() -> Any:
    """A weight in another file, held by a node of a function."""
    from onnx import helper

    nodes = [
        helper.make_node("Constant", [], ["w"], value=stated([3], location="secret.bin")),
        helper.make_node("Add", ["x", "w"], ["y"]),
    ]
    opset = [helper.make_opsetid("", 17)]
    function = helper.make_function("other", "f", ["x"], ["y"], nodes, opset)
    call = helper.make_node("f", ["plain"], ["logits"], domain="other")
    return onnx_model([call], functions=[function])


def chain(count: int) -> Any:
    from onnx import helper

    names = ["plain", *(f"x{n}" for n in range(count - 1)), "logits"]
    return onnx_model(
        [helper.make_node("Sin", [a], [b]) for a, b in zip(names, names[1:], strict=False)]
    )


def custom(domain: str) -> Any:
    from onnx import helper

    return onnx_model([helper.make_node("Run", ["plain"], ["logits"], domain=domain)])


def padded() -> Any:
    from onnx import helper

    pads = constant("pads", [0, 0, 0, 0, 0, 0, 2**16, 2**16])
    nodes = [
        helper.make_node("Pad", ["image", "pads"], ["wide"]),
        helper.make_node("GlobalMaxPool", ["wide"], ["top"]),
        helper.make_node("Flatten", ["top"], ["logits"]),
    ]
    return onnx_model([pads, *nodes])


def sparse_file(path: Path) -> None:
    """Three gigabytes that take no room on the disk."""
    with path.open("wb") as out:
        out.write(onnx_model().SerializeToString())
        out.truncate(3 << 30)


MODELS: dict[str, Callable[[], Any]] = {
    "a weight that states 2**40 numbers": lambda: weighing(stated([2**20, 2**20])),
    "a weight whose shape overflows": lambda: weighing(stated([2**40, 2**40])),
    "a weight of 16 GB without bytes": lambda: weighing(stated([2**32], b"")),
    "a weight of a negative size": lambda: weighing(stated([-1])),
    "a weight in /etc/passwd": lambda: weighing(stated([3], location="/etc/passwd")),
    "a weight outside of the folder": lambda: weighing(stated([3], location="../secret.bin")),
    "a weight far into a file": lambda: weighing(
        stated([3], location="secret.bin", offset=str(2**62), length=str(2**62))
    ),
    "a weight in a file, in a function": external_in_function,
    "a constant of 32 GB": lambda: filling("ConstantOfShape", [1, 2**33]),
    "an expansion to 96 GB": lambda: filling("Expand", [2**33, 3]),
    "a repetition to 96 GB": lambda: filling("Tile", [2**16, 2**17]),
    "a border of 65,536 pixels": padded,
    "a loop of 2**62 trips": lambda: endless_loop(2**62, growing=False),
    "a loop that doubles": lambda: endless_loop(60, growing=True),
    "functions that write out to 2**40 nodes": lambda: doubled_functions(40),
    "a function that calls itself": lambda: doubled_functions(1, itself=True),
    "an operator of a stranger": lambda: custom("other"),
    "an operator of another vendor": lambda: custom("com.microsoft"),
    "an operator that is none": lambda: custom(""),
    "100,000 nodes in a row": lambda: chain(100_000),
}
ONNX: dict[str, Callable[[Path], None]] = {
    **{
        name: lambda path, make=make: path.write_bytes(make().SerializeToString())  # type: ignore[misc]
        for name, make in MODELS.items()
    },
    "3 GB of zeros": sparse_file,
}

# --- Parquet: a sound shard, some pages of which are not what they say ---


def claiming(data: bytes, column: str, uncompressed: int | None, values: int | None) -> bytes:
    """Let the first page header of a column state a size in bytes, or a count of values.

    The header is compact Thrift: field headers of a byte (step to the next field, type),
    numbers as zigzag varints. Dropping its checksum makes room for the longer numbers.
    """
    import pyarrow.parquet as pq

    group = pq.ParquetFile(io.BytesIO(data)).metadata.row_group(0)
    chunks = [group.column(index) for index in range(group.num_columns)]
    chunk = next(chunk for chunk in chunks if chunk.path_in_schema.split(".")[0] == column)
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    at, numbers = start, []
    for _ in range(4):  # type of the page, bytes unpacked, bytes packed, checksum
        number, shift, at = 0, 0, at + 1
        while True:
            number, shift, at = number | (data[at] & 127) << shift, shift + 7, at + 1
            if data[at - 1] < 128:
                break
        numbers.append(number)
    kind = data[at]  # 1c: header of a data page, 3c: of a dictionary, one step more without field 4
    assert kind in (0x1C, 0x3C) and data[at + 1] == 0x15
    at += 2
    end = at + next(n for n in range(1, 6) if data[at + n - 1] < 128)
    count = data[at:end] if values is None else varint(zigzag(values))
    size = numbers[1] if uncompressed is None else zigzag(uncompressed)
    parts = [b"\x15", varint(numbers[0]), b"\x15", varint(size), b"\x15"]
    tail = bytes([kind + 0x10, 0x15]) + count
    room = end - start - len(b"".join(parts)) - len(tail)
    # The size of the packed bytes takes up what is left, with leading zeros.
    header = b"".join(parts) + varint(numbers[2], room) + tail
    assert len(header) == end - start
    return data[:start] + header + data[end:]


def zigzag(number: int) -> int:
    return 2 * number if number >= 0 else -2 * number - 1


def varint(number: int, length: int = 0) -> bytes:
    out = bytearray()
    while number > 127 or len(out) + 1 < length:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def with_pages(path: Path, column: str, **claims: int | None) -> None:
    """Write the shard again, without compression of its structure, and change a page header."""
    import pyarrow.parquet as pq

    sink = io.BytesIO()
    pq.write_table(pq.read_table(path), sink, compression="zstd", write_page_checksum=True)
    path.write_bytes(
        claiming(sink.getvalue(), column, **{"uncompressed": None, "values": None, **claims})
    )


def with_long(path: Path, column: str, bytes_of_zeros: int) -> None:
    """Give the rows of a column values that are zeros, gigabytes of them, packed to kilobytes."""
    import mmap

    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    rows, index = len(table), table.column_names.index(column)
    # A file of zeros that takes no room is the memory of all values.
    with (path.parent / "zeros").open("wb+") as file:
        file.truncate(bytes_of_zeros)
        zeros = pa.py_buffer(mmap.mmap(file.fileno(), bytes_of_zeros, access=mmap.ACCESS_READ))
    (path.parent / "zeros").unlink()
    kind = table.schema.field(column).type
    width = 8 if pa.types.is_list(kind) else 1
    ends = pa.py_buffer(struct.pack(f"<{rows + 1}i", *[0] * rows, bytes_of_zeros // width))
    if pa.types.is_list(kind):
        numbers = pa.Array.from_buffers(pa.float64(), bytes_of_zeros // 8, [None, zeros])
        long = pa.ListArray.from_buffers(kind, rows, [None, ends], children=[numbers])
    else:
        long = pa.StringArray.from_buffers(rows, ends, zeros)
    options = {"compression": "zstd", "use_dictionary": False, "write_statistics": False}
    pq.write_table(table.set_column(index, column, long), path, **options)


PARQUET: dict[str, Callable[[Path], None]] = {
    "a page that states 2 GB": lambda path: with_pages(path, "psnr", uncompressed=2**31 - 1),
    "a page that states a negative size": lambda path: with_pages(path, "psnr", uncompressed=-1),
    "a page that states 2**31 values": lambda path: with_pages(path, "psnr", values=2**31 - 1),
    "a dictionary that states 2 GB": lambda path: with_pages(
        path, "face_id", uncompressed=2**31 - 1
    ),
    "a dictionary that states 2**31 words": lambda path: with_pages(
        path, "face_id", values=2**31 - 1
    ),
    "a list of 2**27 numbers": lambda path: with_long(path, "sr_race_p", 2**30),
    "a text of 1 GB": lambda path: with_long(path, "reason", 2**30),
}
