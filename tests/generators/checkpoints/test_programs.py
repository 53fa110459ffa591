import contextlib
import io
import json
import os
import pickle
import re
import signal
import sys
import threading
import zipfile

import pytest
import torch
from torch import nn

from pulse_audit.files import file_sha256
from pulse_audit.generators.checkpoints import programs, read_checkpoint, trial
from pulse_audit.types import InputError


class Decoder(nn.Module):
    """Ten latents to 8 px, by the kind of layers a DCGAN has."""

    def __init__(self):
        super().__init__()
        self.start = nn.ConvTranspose2d(10, 6, 4)
        self.norm = nn.BatchNorm2d(6)
        self.colours = nn.ConvTranspose2d(6, 3, 4, stride=2, padding=1)

    def forward(self, z):
        x = torch.relu(self.norm(self.start(z.view(z.shape[0], 10, 1, 1))))
        return torch.tanh(self.colours(x))


@pytest.fixture(scope="module")
def decoder():
    torch.manual_seed(0)
    return Decoder().eval()


def exported(decoder, batch):
    dynamic = ({0: torch.export.Dim("n", min=1, max=64)},) if batch is None else None
    program = torch.export.export(decoder, (torch.zeros(batch or 2, 10),), dynamic_shapes=dynamic)
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def program(decoder):
    return exported(decoder, None)


@pytest.mark.parametrize("batch", [None, 1, 2])
def test_a_program_renders_what_was_exported(tmp_path, decoder, batch):
    path = tmp_path / "decoder.pt2"
    path.write_bytes(exported(decoder, batch))
    network = read_checkpoint(path)
    z = torch.randn(3, 10, generator=torch.Generator().manual_seed(0))
    assert network.latent_dim == 10
    torch.testing.assert_close(network(z), decoder(z))
    z.requires_grad_()
    assert torch.autograd.grad(network(z).sum(), z)[0].abs().sum() > 0
    assert not any(p.requires_grad for p in network.parameters())
    assert network.eval().to(dtype=torch.bfloat16)(z.bfloat16()).dtype == torch.float32


def rewritten(data: bytes, change) -> bytes:
    """The archive with its members changed: ``change(inner name, bytes)`` gives bytes or None.

    torch 2.6 writes its members side by side, later versions into a folder and by other names.
    """
    out, same = io.BytesIO(), True
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w") as new:
        first = old.namelist()[0]
        folder = first.split("/")[0] + "/" if "/" in first else ""
        for name in old.namelist():
            before = old.read(name)
            changed = change(name.removeprefix(folder), before)
            same &= changed == before
            if changed is not None:
                new.writestr(name, changed)
        for name, added in change(None, b"") or ():
            new.writestr(f"{folder}{name}", added)
            same = False
    if same:
        pytest.skip("this version of torch writes no such member")
    return out.getvalue()


def graph(edit):
    """Edit the JSON of the graph."""

    def change(name, data):
        if name is None or not re.match(r"(models/.*|serialized_exported_program)\.json", name):
            return data if name else ()
        text = json.loads(data)
        edit(text)
        return json.dumps(text).encode()

    return change


def member(wanted, data):
    """Replace or add a member."""

    def change(name, old):
        if name is None:
            return [(wanted, data)]
        return None if name == wanted else old

    return change


class Attack:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return exec, (f"import pathlib; pathlib.Path({str(self.marker)!r}).touch()",)


def zipped(value) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def pickled_weight(marker):
    """Declare the first weight a pickle, and make it one."""

    def change(name, data):
        if name is None:
            return ()
        if name in ("data/weights/weight_0", "serialized_state_dict.pt"):
            return zipped(Attack(marker))
        if name == "data/weights/model_weights_config.json":
            text = json.loads(data)
            next(iter(text["config"].values()))["use_pickle"] = True
            return json.dumps(text).encode()
        return data

    return change


def redirected(name, data):
    if name != "data/constants/model_constants_config.json":
        return data if name else ()
    entry = {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": True}
    return json.dumps({"config": {"c": {**entry, "tensor_meta": None}}}).encode()


def first_node(text):
    return text["graph_module"]["graph"]["nodes"][0]


def code_as_size(marker):
    def edit(text):
        code = f"__import__('pathlib').Path({str(marker)!r}).touch() or 1"
        values = text["graph_module"]["graph"]["tensor_values"]
        values["z"]["sizes"][0] = {"as_expr": {"expr_str": code, "hint": {"as_int": 2}}}

    return edit


def renamed_input(text):
    spec = text["graph_module"]["module_call_graph"][0]["signature"]
    spec["forward_arg_names"] = ["z=__import__('os').getpid()"]


ATTACKS = {
    "sample inputs that run code": lambda m: member(
        "data/sample_inputs/model.pt", zipped(Attack(m))
    ),
    "a weight that runs code": pickled_weight,
    "a plain pickle": lambda m: member(
        "data/sample_inputs/model.pt", pickle.dumps(Attack(m), protocol=2)
    ),
    "an opaque constant": lambda m: member("data/constants/opaque_obj_0", pickle.dumps(Attack(m))),
    "a config that names one": lambda m: redirected,
    "compiled code": lambda m: member("data/aotinductor/model/model.so", b"\x7fELF"),
    "a size that is code": lambda m: graph(code_as_size(m)),
    "a power that fills the memory": lambda m: graph(
        lambda t: t["graph_module"]["graph"]["tensor_values"]["z"]["sizes"].__setitem__(
            0, {"as_expr": {"expr_str": "9**9**9**9", "hint": None}}
        )
    ),
    "a name that is code": lambda m: graph(renamed_input),
    "an operator that opens files": lambda m: graph(
        lambda t: first_node(t).update(target="torch.ops.aten.from_file.default")
    ),
    "a function outside the list": lambda m: graph(
        lambda t: first_node(t).update(target="torch.serialization.load")
    ),
    "guards in Python": lambda m: graph(lambda t: t.update(guards_code=["print(1)"])),
    "a class to return": lambda m: graph(
        lambda t: t["graph_module"]["module_call_graph"][0]["signature"].update(
            out_spec='[1, {"type": "os.system", "context": "null", "children_spec": []}]'
        )
    ),
    "a line end in the metadata": lambda m: graph(
        lambda t: first_node(t)["metadata"].update(stack_trace="x\rimport os")
    ),
    "no JSON": lambda m: member("models/model.json", b"{"),
}


def size_expression(text):
    def edit(graph):
        values = graph["graph_module"]["graph"]["tensor_values"]
        values["z"]["sizes"][0] = {"as_expr": {"expr_str": text, "hint": {"as_int": 2}}}

    return graph(edit)


def target(name):
    return graph(lambda t: first_node(t).update(target=name))


def sizes(*lengths):
    entries = [{"as_int": n} for n in lengths]
    return graph(lambda t: t["graph_module"]["graph"]["tensor_values"]["z"].update(sizes=entries))


def deep(name, data):
    if name and re.match(r"(models/.*|serialized_exported_program)\.json", name):
        return b'{"a":' * 20_000 + b"1" + b"}" * 20_000
    return data if name else ()


BOMBS = {
    "unsafe sparse tensors": (
        target("torch.ops.aten._sparse_coo_tensor_unsafe.default"),
        "operator 'torch.ops.aten._sparse_coo_tensor_unsafe.default' is not one of image networks",
    ),
    "an FFT plan": (target("torch.ops.aten._fft_r2c.default"), "operator .*_fft_r2c"),
    "an output that is resized": (target("torch.ops.aten.add.out"), "operator .*add.out"),
    "memory without values": (target("torch.ops.aten.empty.memory_format"), "operator .*empty"),
    "a shift": (size_expression("1<<40000000000"), "expr_str that no plain export writes"),
    "a shift to the right": (size_expression("8>>-1"), "expr_str that no plain export writes"),
    "a number of 100 digits": (size_expression("9" * 100), "expr_str that no plain"),
    "an integer of 100 digits": (
        graph(lambda t: first_node(t).update(inputs=[{"arg": {"as_int": 10**99}}])),
        "an integer of more than 20 digits",
    ),
    "a tensor of terabytes": (sizes(2**20, 2**20), "a tensor of over 2,147,483,648 numbers"),
    "a negative size": (sizes(-5, 10), "a tensor of over"),
    "a deep description": (deep, "no JSON of a graph"),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_operators_and_sizes_are_bounded(tmp_path, program, bomb):
    path = tmp_path / "bad.pt2"
    change, message = BOMBS[bomb]
    path.write_bytes(rewritten(program, change))
    with pytest.raises(InputError, match=f"refused, not opened: .*{message}") as caught:
        read_checkpoint(path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


class Hungry(nn.Module):
    """A decoder that takes four gigabytes for nothing."""

    def forward(self, z):
        return z[:, :3, None, None] + torch.ones(2**30)[:8]


def test_a_program_that_fills_the_memory_is_refused_by_its_first_run(tmp_path):
    path = tmp_path / "hungry.pt2"
    torch.export.save(torch.export.export(Hungry(), (torch.zeros(1, 10),)), path)
    with pytest.raises(InputError, match="refused, not opened: its first run"):
        read_checkpoint(path)


@pytest.fixture
def crashing_python(tmp_path, monkeypatch):
    """In place of a new interpreter, one that crashes."""
    crash = tmp_path / "python"
    crash.write_text("#!/bin/sh\ncat > /dev/null\nkill -SEGV $$\n")
    crash.chmod(0o755)
    monkeypatch.setattr(trial.sys, "executable", str(crash))
    monkeypatch.setattr(trial, "_passed", set())


def crash(data):
    os.kill(os.getpid(), signal.SIGSEGV)


def test_a_program_that_crashes_ends_only_its_own_process(
    tmp_path, program, monkeypatch, crashing_python
):
    monkeypatch.setattr(trial, "_run", crash)
    (tmp_path / "decoder.pt2").write_bytes(program)
    with pytest.raises(InputError, match=r"its first run crashed \(exit code -11\)"):
        read_checkpoint(tmp_path / "decoder.pt2")


def test_a_fork_that_crashes_is_no_verdict_but_a_new_interpreter_is(
    tmp_path, program, monkeypatch, capfd
):
    monkeypatch.setattr(trial, "_run", crash)
    monkeypatch.setattr(trial, "_passed", set())
    (tmp_path / "decoder.pt2").write_bytes(program)
    assert read_checkpoint(tmp_path / "decoder.pt2").latent_dim == 10
    assert capfd.readouterr() == ("", "")


def test_nothing_is_forked_beside_a_second_thread(tmp_path, program, monkeypatch, crashing_python):
    (tmp_path / "decoder.pt2").write_bytes(program)
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    try:
        with pytest.raises(InputError, match=r"its first run crashed \(exit code -11\)"):
            read_checkpoint(tmp_path / "decoder.pt2")
    finally:
        stop.set()
        thread.join()
    # And without it the program passes in a fork, which leaves nothing behind.
    assert read_checkpoint(tmp_path / "decoder.pt2").latent_dim == 10
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="forks are for Linux")
def test_a_program_that_never_ends_is_refused_by_its_first_run(tmp_path, program, monkeypatch):
    def endless(data):
        while True:
            pass

    monkeypatch.setattr(programs, "read_program", endless)
    monkeypatch.setattr(trial, "SECONDS", 1)
    monkeypatch.setattr(trial, "_passed", set())
    (tmp_path / "decoder.pt2").write_bytes(program)
    with pytest.raises(InputError, match="first run takes over 1 seconds of processor time"):
        read_checkpoint(tmp_path / "decoder.pt2")


@pytest.mark.parametrize("attack", ATTACKS)
def test_whatever_could_run_is_refused_and_names_the_opt_in(tmp_path, program, attack):
    marker, path = tmp_path / "marker", tmp_path / "bad.pt2"
    path.write_bytes(rewritten(program, ATTACKS[attack](marker)))
    with pytest.raises(InputError) as caught:
        read_checkpoint(path)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 500
    assert message.startswith(f"{path}: refused, not opened: ")
    assert message.endswith(f"--trust-file {file_sha256(path)}")
    assert not marker.exists()


def test_the_attacks_would_work_without_the_look(tmp_path, program):
    """What the user vouches for is run: that is what the opt-in says."""
    marker, path = tmp_path / "marker", tmp_path / "bad.pt2"
    path.write_bytes(rewritten(program, graph(code_as_size(marker))))
    with contextlib.suppress(InputError):
        read_checkpoint(path, trust_file=file_sha256(path))
    assert marker.exists()


def test_trust_is_for_one_very_file(tmp_path, program):
    path = tmp_path / "decoder.pt2"
    path.write_bytes(program)
    with pytest.raises(InputError, match="not the one given"):
        read_checkpoint(path, trust_file="0" * 64)
    assert read_checkpoint(path, trust_file=file_sha256(path).upper()).latent_dim == 10


def test_a_member_outside_the_archive_has_no_opt_in(tmp_path, program):
    path = tmp_path / "bad.pt2"
    path.write_bytes(rewritten(program, member("../../evil", b"x")))
    with pytest.raises(InputError, match=r"'[\w/]*\.\./\.\./evil' points outside the archive$"):
        read_checkpoint(path, trust_file=file_sha256(path))


def test_a_program_of_something_else_is_refused(tmp_path):
    path = tmp_path / "other.pt2"
    torch.export.save(torch.export.export(nn.Conv2d(3, 3, 1), (torch.zeros(1, 3, 4, 4),)), path)
    with pytest.raises(InputError, match="something other than latents"):
        read_checkpoint(path)


@pytest.mark.parametrize("content", [b"", b"not a zip archive"])
def test_what_is_no_program_has_no_opt_in(tmp_path, content):
    path = tmp_path / "empty.pt2"
    path.write_bytes(content)
    with pytest.raises(InputError, match="it is no torch.export program, .* zip archive$"):
        read_checkpoint(path)
