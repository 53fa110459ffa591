import collections
import datetime
import io
import pickle
import random
import struct

import numpy as np
import pytest
import torch

from pulse_audit.generators.checkpoints import unpickle
from pulse_audit.generators.checkpoints.budget import Damaged
from pulse_audit.generators.checkpoints.pickle_data import Inert
from pulse_audit.generators.checkpoints.unpickle import BUILDERS, PickleMachine


def read(data: bytes):
    return PickleMachine(BUILDERS).run(io.BytesIO(data))


PLAIN = {
    "numbers": [0, -1, 255, 65536, 2**40, -(2**70), 0.5, float("inf")],
    "texts": ["", "ä" * 300, b"bytes", b"x" * 300],
    "nested": ((), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), [[]], {"a": {"b": None}}),
    "truth": [True, False, None],
    "sets": [{1, 2}, set()],
    3: collections.OrderedDict([("x", 1), ("y", [2])]),
}


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_plain_data_is_what_pickle_reads(protocol):
    shared = [1]
    value = {**PLAIN, "shared": [shared, shared]}
    data = pickle.dumps(value, protocol)
    assert read(data) == pickle.loads(data)
    assert len({id(part) for part in read(data)["shared"]}) == 1


def test_cycles_are_kept():
    value: list = []
    value.append(value)
    out = read(pickle.dumps(value))
    assert out[0] is out


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int64", "uint8", "bool"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_numpy_arrays_become_tensors(dtype, order):
    array = np.asarray(np.arange(6).reshape(2, 3) % 2, dtype=dtype, order=order)
    for protocol in (2, 4):
        tensor = read(pickle.dumps(array, protocol)).tensor()
        assert tensor.dtype == (torch.float32 if "float" in dtype else getattr(torch, dtype))
        np.testing.assert_array_equal(tensor.numpy(), array)


def test_numpy_scalars_become_numbers():
    assert read(pickle.dumps([np.float64(2.5), np.int64(3), np.float32(0.5)])) == [2.5, 3, 0.5]


def test_big_endian_arrays_are_refused():
    with pytest.raises(Damaged, match="big-endian"):
        read(pickle.dumps(np.zeros(2, dtype=">f4")))


class Settings:
    def __init__(self, size):
        self.size = size


def test_other_objects_become_inert_data():
    out = read(pickle.dumps([Settings(3), datetime.date(2020, 1, 2), Settings]))
    assert isinstance(out[0], Inert)
    assert out[0].name.name == "Settings"
    assert out[0].attribute("size") == 3
    assert str(out[1].name) == "datetime.date"
    assert out[1].args == (datetime.date(2020, 1, 2).__reduce__()[1][0],)
    assert str(out[2]).endswith("Settings")


class Attack:
    """Whatever reads this with pickle calls the function."""

    def __init__(self, function, *args):
        self.call = (function, args)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [2, 4])
def test_nothing_is_called(tmp_path, protocol):
    marker = tmp_path / "marker"
    code = f"import pathlib; pathlib.Path({str(marker)!r}).touch()"
    attacks = [Attack(exec, code), Attack(open, str(marker), "w"), Attack(eval, code)]
    out = read(pickle.dumps(attacks, protocol))
    assert not marker.exists()
    assert [part.name.name for part in out] == ["exec", "open", "eval"]
    assert out[0].args == (code,)
    pickle.loads(pickle.dumps(attacks[0], protocol))
    assert marker.exists()  # the attack would have worked


def test_items_and_elements_of_unknown_containers_are_data():
    counter = read(pickle.dumps(collections.Counter("aab")))
    assert counter.args == ({"a": 2, "b": 1},)
    queue = read(pickle.dumps(collections.defaultdict(list, {"k": [1]})))
    assert queue.items == {"k": [1]}
    assert read(pickle.dumps(collections.deque([1, 2]))).elements == [1, 2]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "."),
        (b"not a pickle", "."),
        (pickle.dumps([1, 2, 3])[:-3], "."),
        (pickle.dumps({"a": 1}, 0), "closed list"),
        (b"\x80\x04\x82\x01.", "EXT1 is not on the closed list"),
        (b"\x80\x04Q.", "refers to data outside"),
        (b"\x80\x04h\x05.", "."),
        (b"\x80\x04.", "."),
        (b"\x80\x04K\x01K\x02a.", "int where a list"),
        (b"\x80\x04K\x01K\x02b.", "build"),
        (b"\x80\x04K\x01)R.", "int where a Name"),
        (b"\x80\x04" + b"\x8e" + struct.pack("<Q", 2**50) + b"x.", "expected"),
        (b"\x80\x04" + b"\x8d" + struct.pack("<Q", 2**62) + b"x.", "expected"),
        (b"\x80\x02X" + struct.pack("<I", 2**31) + b"x.", "expected"),
        (b"\x80\x04\x8b" + struct.pack("<i", 2**30) + b"x.", "not enough data"),
        (b"\x80\x05\x96" + struct.pack("<Q", 2**50) + b"x.", "."),
    ],
)
def test_what_makes_no_sense_is_refused(data, message):
    with pytest.raises(Damaged, match=message) as caught:
        read(data)
    assert len(str(caught.value)) < 200


def test_keys_that_take_for_ever_to_hash_are_refused():
    """Forty tuples, each of two of the one before: 2**40 steps to hash."""
    doubled = b"".join(b"h%ch%c\x86\x940" % (i, i) for i in range(40))
    data = b"\x80\x04}K\x01\x85\x940" + doubled + b"h\x28"
    with pytest.raises(Damaged, match="tuple as a key"):
        read(data + b"K\x01s.")


def test_endless_pickles_are_refused(monkeypatch):
    monkeypatch.setattr(unpickle, "MAX_INSTRUCTIONS", 1000)
    with pytest.raises(Damaged, match="over 1,000 instructions"):
        read(b"\x80\x04" + b"}" * 2000 + b".")


def test_any_damage_ends_in_data_or_refusal():
    """Flip bits and cut anywhere: no other exception, whatever the bytes say."""
    value = [{**PLAIN, "tensor": np.ones(3), "object": Settings(2)}, 1]
    source = random.Random(0)
    for protocol in (2, 4):
        data = pickle.dumps(value, protocol)
        for _ in range(1500):
            broken = bytearray(data)
            for _ in range(source.randint(1, 3)):
                broken[source.randrange(len(broken))] ^= 1 << source.randrange(8)
            try:
                read(bytes(broken[: source.choice([len(broken), source.randrange(len(broken))])]))
            except Damaged as error:
                assert "\n" not in str(error)
