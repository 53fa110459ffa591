"""ONNX models from outside: what they may hold, and their first run in a process of its own.

A model is data for onnxruntime, which executes whatever its graph says: loops without an end,
functions that write out to billions of nodes, constants of gigabytes. What can be counted is
counted first; then the model runs once in another process, with limits on memory and time.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pulse_audit.documents import read_file
from pulse_audit.sandbox import limit_process, run_module
from pulse_audit.types import InputError

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

#: Largest model in bytes; attribute networks have some 90 MB.
MAX_MODEL = 2**29
#: Most nodes of a graph once its functions are written out.
MAX_NODES = 100_000
#: Operators that repeat a part of the graph, as often as the model says.
LOOPS = ("Loop", "Scan", "SequenceMap")
#: Operators that draw random numbers.
RANDOM = ("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli",
          "Multinomial")  # fmt: skip
# Of the first run: address space beyond that of onnxruntime itself and four times the file, seconds
# of processor time, and of a clock on the wall, which a machine under load needs more of.
MEMORY, SECONDS, TIMEOUT = 2**30, 10, 120
# Exit code of a first run that fails.
FAILED = 4


def read_model(path: Path) -> tuple[bytes, Any]:
    """Read a model and look at its graph; nothing of it is run.

    Returns
    -------
    data : bytes
    model : onnx.ModelProto

    Raises
    ------
    InputError
        In one line: it is missing, damaged or too large, keeps weights in other files, or holds
        loops or functions that write out to too many nodes.
    """
    import onnx

    try:
        data = read_file(path, MAX_MODEL)
    except FileNotFoundError:
        raise InputError(f"{path}: cannot be read (No such file or directory)") from None
    try:
        model = onnx.load_model_from_string(data)
    except Exception as error:  # protobuf's own exceptions share no base class with Python's
        raise InputError(f"{path}: is no ONNX model ({one_line(error)})") from None

    # All graphs: of the model, of its functions, and those inside their nodes.
    parts = [model.graph, *model.functions]
    if any(onnx.external_data_helper.uses_external_data(t) for p in parts for t in _tensors(p)):
        raise InputError(
            f"{path}: keeps weights in other files, which its SHA-256 would not cover; save it as "
            "one file"
        )
    for node in (node for part in parts for node in _nodes(part)):
        if node.op_type in LOOPS:
            raise InputError(f"{path}: holds a {node.op_type}, which image networks do not need")

    # Nodes with the functions written out, whose own are counted once.
    functions = {(function.domain, function.name): function for function in model.functions}
    counts: dict[tuple[str, str], int] = {}

    def count(part: Any, depth: int) -> int:
        total = 0
        for node in _nodes(part):
            name = (node.domain, node.op_type)
            if name in functions and name not in counts:
                if depth == len(functions):
                    raise InputError(f"{path}: its function {node.op_type!r} calls itself")
                counts[name] = count(functions[name], depth + 1)
            total += counts.get(name, 1)
        return total

    try:
        nodes = count(model.graph, 0)
    except RecursionError:
        nodes = MAX_NODES + 1
    if nodes > MAX_NODES:
        raise InputError(f"{path}: has more than {MAX_NODES:,} nodes")
    return data, model


def random_operators(model: Any) -> list[str]:
    """Return the operators of a model that draw random numbers, each once."""
    parts = [model.graph, *model.functions]
    found = {node.op_type for part in parts for node in _nodes(part)}
    return sorted(found & set(RANDOM))


def check_installed(path: Path) -> None:
    """Raise `InputError` unless onnx and onnxruntime are installed."""
    if find_spec("onnx") is None or find_spec("onnxruntime") is None:
        raise InputError(f"{path}: needs onnx and onnxruntime: install pulse-audit[onnx]")


def _nodes(part: Any) -> Iterator[Any]:
    """Yield the nodes of a graph or a function, and of the graphs inside it."""
    for node in part.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _nodes(inner)


def _tensors(part: Any) -> Iterator[Any]:
    """Yield the stored tensors of a graph or a function, and of the graphs inside it."""
    yield from getattr(part, "initializer", ())
    for sparse in getattr(part, "sparse_initializer", ()):
        yield from (sparse.values, sparse.indices)
    for attribute in (a for node in part.node for a in node.attribute):
        yield from (attribute.t, *attribute.tensors)
        for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
            yield from (sparse.values, sparse.indices)
        for inner in (attribute.g, *attribute.graphs):
            yield from _tensors(inner)


def open_session(path: Path, data: bytes, threads: int, gpu: int | None = None) -> InferenceSession:
    """Open a model in onnxruntime, on a GPU where one is given and onnxruntime can.

    Raises
    ------
    InputError
        If onnxruntime refuses it.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # what it logs of a model it refuses is in the exception too
    providers: list[Any] = ["CPUExecutionProvider"]
    if gpu is not None and "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        providers.insert(0, ("CUDAExecutionProvider", {"device_id": gpu}))
    try:
        # On failure it prints, and tries the same again where the CPU is all there is.
        fallback = int(len(providers) > 1)
        session = onnxruntime.InferenceSession(
            data, options, providers=providers, enable_fallback=fallback
        )
        # Names that are not UTF-8 are noticed only when they are read.
        for node in (*session.get_inputs(), *session.get_outputs()):
            _ = node.name, node.shape
        return session
    except Exception as error:  # onnxruntime's own exceptions share no base class
        raise InputError(f"{path}: onnxruntime refuses it: {one_line(error)}") from None


def try_model(
    path: Path,
    data: bytes,
    shape: tuple[int, ...],
    seconds: int = SECONDS,
    memory: int = MEMORY,
) -> None:
    """Open a model and run it once in another process, within limits on memory and time.

    Parameters
    ----------
    path : Path
        For messages.
    data : bytes
    shape : tuple of int
        Of the images where the model leaves it open, (n, 3, R, R) or (n, R, R, 3).
    seconds, memory : int
        Of processor time, and bytes of address space beyond those of onnxruntime and the model.

    Raises
    ------
    InputError
        If it crashes, fails, or takes more memory or time than the limits.
    """
    timeout = TIMEOUT * seconds // SECONDS
    arguments = [str(path), json.dumps([shape, seconds, memory])]
    trial = run_module(__name__, data, timeout, arguments)
    if trial is None:
        raise InputError(f"{path}: its first run takes over {timeout} seconds")
    code, reason = trial
    if code == FAILED and reason:
        raise InputError(reason)
    if code == -signal.SIGXCPU:
        raise InputError(f"{path}: its first run takes over {seconds} seconds of processor time")
    if code != 0:
        raise InputError(f"{path}: its first run crashed (exit code {code})")


def main() -> None:
    """Run the model on standard input on grey images; end with an exit code, print the reason."""
    path, (shape, seconds, memory) = Path(sys.argv[1]), json.loads(sys.argv[2])
    importlib.import_module("onnxruntime")
    data = sys.stdin.buffer.read()
    # The limits count from here.
    limit_process(seconds, memory + 4 * len(data))
    code = 0
    try:
        session = open_session(path, data, 1)
        # What is no model of images is refused later, with the reason.
        if images := grey_images(session, shape):
            run_session(path, session, [], images)
    except (InputError, MemoryError) as error:
        print(str(error) or f"{path}: its first run takes over {memory:,} bytes", flush=True)
        code = FAILED
    # Without the clean-up of the interpreter, which may crash after a model that misbehaved.
    os._exit(code)


def grey_images(session: InferenceSession, shape: list[int]) -> dict[str, Any]:
    """Grey images for the one input of a model, in its own shape where it has one; else nothing."""
    inputs = session.get_inputs()
    if len(inputs) != 1 or len(inputs[0].shape or ()) != 4 or inputs[0].type != "tensor(float)":
        return {}
    sizes = [
        own if isinstance(own, int) else due
        for own, due in zip(inputs[0].shape, shape, strict=True)
    ]
    return {inputs[0].name: np.full(sizes, 0.5, np.float32)}


def run_session(
    path: Path, session: InferenceSession, outputs: list[str], images: Mapping[str, Any]
) -> list[Any]:
    """Run a model; ``outputs`` are named, or all of them.

    Raises
    ------
    InputError
        If the model fails.
    """
    try:
        answers: list[Any] = session.run(outputs or None, dict(images))
    except Exception as error:  # onnxruntime's own exceptions share no base class
        raise InputError(f"{path}: {one_line(error)}") from None
    return answers


def one_line(error: BaseException) -> str:
    """Return the message of an error on one line."""
    return " ".join(str(error).split())[:200]
