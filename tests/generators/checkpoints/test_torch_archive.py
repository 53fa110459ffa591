import argparse
import io
import pickle
import random
import struct
import zipfile

import pytest
import torch

from pulse_audit.generators.checkpoints.budget import Damaged
from pulse_audit.generators.checkpoints.pickle_data import Inert, StoredTensor
from pulse_audit.generators.checkpoints.torch_archive import archive, opened

TYPES = ["float32", "float64", "float16", "bfloat16", "int64", "int32", "uint8", "bool"]


def written(path, value, legacy=False):
    torch.save(value, path, _use_new_zipfile_serialization=not legacy)
    return path


def pickled(path, value):
    path.write_bytes(pickle.dumps(value))
    return path


WRITERS = {
    "zip": lambda path, value: written(path, value),
    "stream": lambda path, value: written(path, value, legacy=True),
    "pickle": pickled,
}


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("dtype", TYPES)
def test_tensors_are_what_torch_reads(tmp_path, kind, dtype):
    source = torch.Generator().manual_seed(0)
    values = (3 * torch.randn(4, 5, generator=source)).to(getattr(torch, dtype))
    saved = {"whole": values, "view": values[1:, ::2].T, "zero": values[:0], "one": values[0, 0]}
    with opened(WRITERS[kind](tmp_path / "file.pt", saved)) as root:
        for key, expected in saved.items():
            tensor = root[key].tensor()
            assert tensor.is_contiguous()
            expected = expected.float() if expected.is_floating_point() else expected
            assert torch.equal(tensor, expected)


@pytest.mark.parametrize("kind", WRITERS)
def test_parameters_and_modules_are_data(tmp_path, kind):
    module = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    with opened(WRITERS[kind](tmp_path / "file.pt", {"g": module})) as root:
        linear = root["g"].attribute("_modules")["0"]
        assert isinstance(linear, Inert)
        weight = linear.attribute("_parameters")["weight"].tensor()
    assert torch.equal(weight, module[0].weight)


@pytest.mark.parametrize("kind", WRITERS)
def test_settings_of_unknown_classes_do_not_matter(tmp_path, kind):
    """Training checkpoints hold them; ``weights_only=True`` refuses the whole file."""
    saved = {"g_ema": {"weight": torch.ones(2)}, "args": argparse.Namespace(size=256)}
    with opened(WRITERS[kind](tmp_path / "file.pt", saved)) as root:
        assert root["args"].attribute("size") == 256
        assert torch.equal(root["g_ema"]["weight"].tensor(), torch.ones(2))


def test_shared_storages_are_read_for_each_tensor(tmp_path):
    base = torch.arange(10.0)
    with opened(written(tmp_path / "file.pt", [base[2:4], base[5:]])) as root:
        assert [part.tensor().tolist() for part in root] == [[2, 3], [5, 6, 7, 8, 9]]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "no checkpoint"),
        (b"<!DOCTYPE html><html>Quota exceeded", "web page: the download failed"),
        (b"\n <html>", "web page"),
        (b"PK\x03\x04 and no more", "zip archive is broken"),
        (b"\x89PNG\r\n\x1a\n0000", "no checkpoint"),
        (b"\x80\x04", "at byte"),
    ],
)
def test_other_files_are_refused(tmp_path, data, message):
    path = tmp_path / "file.pt"
    path.write_bytes(data)
    with pytest.raises(Damaged, match=message), opened(path):
        pass


def forged(path, members, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as out:
        for name, data in members:
            out.writestr(name, data)
    return path


def description(count=4, shape=(4,), stride=(1,), offset=0) -> bytes:
    """A data.pkl with one tensor that declares what it likes."""

    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            if isinstance(value, Placeholder):
                return ("storage", torch.FloatStorage, "0", "cpu", count)
            return None

    class Placeholder:
        pass

    class Tensor:
        def __reduce__(self):
            arguments = (Placeholder(), offset, shape, stride, False, {})
            return torch._utils._rebuild_tensor_v2, arguments

    buffer = io.BytesIO()
    Pickler(buffer, 2).dump(Tensor())
    return buffer.getvalue()


def numbers(count):
    return struct.pack(f"<{count}f", *range(count))


def test_the_forged_archive_is_well_formed(tmp_path):
    path = forged(tmp_path / "file.pt", [("a/data.pkl", description()), ("a/data/0", numbers(4))])
    with opened(path) as root:
        assert root.tensor().tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ({"count": 2**38}, "declares 1,099,511,627,776 bytes and has 16"),
        ({"count": 2**60}, "unknown kind of storage"),
        ({"count": -1}, "unknown kind of storage"),
        ({"shape": (2**38,)}, "in a storage of 4 numbers"),
        ({"shape": (2**38,), "stride": (0,)}, "in a storage of 4 numbers"),
        ({"shape": (2**20,) * 6, "stride": (0,) * 6}, "in a storage of 4 numbers"),
        ({"shape": (1,) * 20, "stride": (0,) * 20}, "impossible shape"),
        ({"shape": (-1,)}, "impossible shape"),
        ({"shape": (2**5000,)}, "impossible shape"),
        ({"offset": 1}, "in a storage of 4 numbers"),
        ({"stride": (2,)}, "in a storage of 4 numbers"),
        ({"stride": (1, 1)}, "impossible shape"),
    ],
)
def test_sizes_above_the_files_are_refused(tmp_path, declared, message):
    members = [("a/data.pkl", description(**declared)), ("a/data/0", numbers(4))]
    path = forged(tmp_path / "file.pt", members)
    with pytest.raises(Damaged, match=message), opened(path) as root:
        root.tensor()


@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/etc/evil", "a\\..\\evil", "C:evil"])
def test_members_outside_the_archive_are_refused(tmp_path, name):
    path = forged(tmp_path / "file.pt", [("a/data.pkl", description()), (name, b"payload")])
    with pytest.raises(Damaged, match="points outside the archive"), opened(path):
        pass
    assert [p.name for p in tmp_path.iterdir()] == ["file.pt"]


def test_compressed_members_are_refused(tmp_path):
    """A few kilobytes can unpack to gigabytes; PyTorch never compresses."""
    members = [("a/data.pkl", description()), ("a/data/0", bytes(2**20))]
    path = forged(tmp_path / "file.pt", members, zipfile.ZIP_DEFLATED)
    with pytest.raises(Damaged, match="is compressed or encrypted"), opened(path):
        pass


def test_members_that_declare_more_than_the_file_holds_are_refused(tmp_path):
    path = forged(tmp_path / "file.pt", [("a/data.pkl", description()), ("a/data/0", numbers(4))])
    data = bytearray(path.read_bytes())
    entry = data.rindex(b"PK\x01\x02")
    struct.pack_into("<II", data, entry + 20, 2**31, 2**31)
    path.write_bytes(data)
    with pytest.raises(Damaged, match="declare 2,147,4.* bytes, the file has"), opened(path):
        pass


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_members_of_one_name_are_refused(tmp_path):
    path = forged(tmp_path / "file.pt", [("a/data.pkl", description()), ("a/data.pkl", b"")])
    with pytest.raises(Damaged, match="one name"), opened(path):
        pass


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("a/readme", b"")], "none that torch.save wrote"),
        ([("a/data.pkl", description())], "'a/data/0' is missing"),
        ([("a/data.pkl", description()), ("a/byteorder", b"big")], "big-endian"),
    ],
)
def test_incomplete_archives_are_refused(tmp_path, members, message):
    with (
        pytest.raises(Damaged, match=message),
        opened(forged(tmp_path / "file.pt", members)) as root,
    ):
        root.tensor()


def test_streams_that_declare_more_than_the_file_holds_are_refused(tmp_path):
    path = written(tmp_path / "file.pt", torch.arange(4.0), legacy=True)
    data = path.read_bytes()
    huge = data.replace(b"K\x04", b"J" + struct.pack("<i", 2**30))
    huge = huge.replace(struct.pack("<q", 4), struct.pack("<q", 2**30))
    path.write_bytes(huge)
    with pytest.raises(Damaged, match="declares 4,294,967,296 bytes, 16 are left"), opened(path):
        pass


def test_storages_inside_storages_are_refused(tmp_path):
    """NVIDIA's pickles hold streams; a stream in a stream in a stream ... has no end."""

    class Nested:
        def __init__(self, data):
            self.data = data

        def __reduce__(self):
            return torch.storage._load_from_bytes, (self.data,)

    buffer = io.BytesIO()
    torch.save([Nested(b"x")], buffer, _use_new_zipfile_serialization=False)
    path = pickled(tmp_path / "file.pkl", Nested(buffer.getvalue()))
    with opened(path) as root:
        assert isinstance(root[0], Inert)


def outcome(path):
    try:
        with opened(path) as root:
            values = root.values() if isinstance(root, dict) else ()
            return [v.tensor() for v in values if isinstance(v, StoredTensor)]
    except Damaged:
        return None


@pytest.mark.parametrize("kind", WRITERS)
def test_any_damage_ends_in_data_or_refusal(tmp_path, kind):
    path = WRITERS[kind](tmp_path / "file.pt", {"w": torch.arange(6.0).view(2, 3), "n": 3})
    data, source = path.read_bytes(), random.Random(0)
    for _ in range(200):
        broken = bytearray(data)
        broken[source.randrange(len(broken))] ^= 1 << source.randrange(8)
        path.write_bytes(broken if source.random() < 0.5 else data[: source.randrange(len(data))])
        found = outcome(path)
        assert found is None or all(isinstance(value, torch.Tensor) for value in found)


def test_flipped_weights_fail_their_checksum(tmp_path):
    path = written(tmp_path / "file.pt", {"w": torch.arange(64.0)})
    data = bytearray(path.read_bytes())
    data[data.index(struct.pack("<f", 33.0))] ^= 4
    path.write_bytes(data)
    with pytest.raises(Damaged, match="Bad CRC"), opened(path) as root:
        root["w"].tensor()


def test_archives_are_closed(tmp_path):
    path = written(tmp_path / "file.pt", {"w": torch.ones(1)})
    with path.open("rb") as file, archive(file) as members:
        assert len(members.namelist()) > 1
    assert members.fp is None
