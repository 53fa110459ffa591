import datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pulse_audit.datasets.tables import (
    MAX_BYTES,
    Damage,
    original_word,
    read_csv,
    read_text,
    repair_csv,
)
from pulse_audit.types import InputError

FAIRFACE = ("0-2", "3-9", "10-19", "20-29", "30-39", "40-49", "50-59", "60-69", "more than 70")
FFHQ_AGING = (
    "0-2", "3-6", "7-9", "10-14", "15-19", "20-29", "30-39", "40-49", "50-69", "70-120",
)  # fmt: skip


def write(tmp_path: Path, data: bytes | str) -> Path:
    path = tmp_path / "labels.csv"
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        read_csv(path)
    line = str(caught.value)
    assert "\n" not in line and "labels.csv" in line and len(line) < 400
    return line


@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("ending", [b"\n", b"\r\n", b"\r"])
def test_bom_and_line_endings_do_not_matter(tmp_path: Path, bom: bytes, ending: bytes) -> None:
    path = write(tmp_path, bom + ending.join([b"file,age", b"a.jpg,3-9", b"b.jpg,007", b""]))
    table = read_csv(path)
    assert table.header == ["file", "age"]
    assert table.rows == [["a.jpg", "3-9"], ["b.jpg", "007"]]


def test_cells_stay_text(tmp_path: Path) -> None:
    path = write(tmp_path, 'file,x\na.jpg,=1+1\nb.jpg,1e5\nc.jpg,"<script>,"\nd.jpg,NA\n')
    assert read_csv(path).column("x") == ["=1+1", "1e5", "<script>,", "NA"]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "empty"),
        (b"\n\n", "empty"),
        (b"file,age\n", "no rows"),
        (b"file,age\na.jpg\n", "row 2: has 1 cells"),
        (b"file,age\na.jpg,1\nb.jpg,2,3\n", "row 3: has 3 cells"),
        (b"file;age\na.jpg;1\n", "commas"),
        (b"file,file\na.jpg,1\n", "twice"),
        (b"file,age\na.jpg,\xff\n", "row 2: byte 0xff"),
        ("file,age\na.jpg,1\n".encode("utf-16"), "UTF-8"),
        (b'file,age\na.jpg,"1\n', "row 2: is not CSV"),
        (b"file,age\na.jpg," + b"x" * 200_000 + b"\n", "row 2: is not CSV"),
    ],
)
def test_bad_tables_cost_one_line(tmp_path: Path, data: bytes, expected: str) -> None:
    assert expected in refusal(write(tmp_path, data))


def test_a_table_larger_than_any_label_file_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "file,age\na.jpg,1\n")
    with path.open("r+b") as file:
        file.truncate(MAX_BYTES + 1)
    assert "larger" in refusal(path)
    with pytest.raises(InputError, match="larger"):
        read_text(write(tmp_path, "file,age\na.jpg,1\n"), 10)


DAMAGED = 'file,age,note\r\na.jpg,03-Sep,"one, two"\r\nb.jpg,20-29,\r\nc.jpg,Oct-19,ü\r\n'
REPAIRED = 'file,age,note\r\na.jpg,3-9,"one, two"\r\nb.jpg,20-29,\r\nc.jpg,10-19,ü\r\n'


def damages(path: Path) -> list[Damage]:
    return [Damage(path, 2, "age", "03-Sep", "3-9"), Damage(path, 4, "age", "Oct-19", "10-19")]


@pytest.mark.parametrize("bom", ["", "\ufeff"])
def test_repair_changes_only_the_damaged_cells(tmp_path: Path, bom: str) -> None:
    path = write(tmp_path, bom + DAMAGED)
    backup = repair_csv(path, damages(path))
    assert path.read_bytes() == (bom + REPAIRED).encode()
    assert backup.name == "labels.csv.bak"
    assert backup.read_bytes() == (bom + DAMAGED).encode()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["labels.csv", "labels.csv.bak"]


def test_repair_keeps_the_permissions(tmp_path: Path) -> None:
    path = write(tmp_path, DAMAGED)
    path.chmod(0o640)
    repair_csv(path, damages(path))
    assert path.stat().st_mode & 0o777 == 0o640


def test_an_earlier_original_is_never_overwritten(tmp_path: Path) -> None:
    path = write(tmp_path, DAMAGED)
    (tmp_path / "labels.csv.bak").write_text("the first original")
    with pytest.raises(InputError, match="exists already"):
        repair_csv(path, damages(path))
    assert path.read_bytes() == DAMAGED.encode()


def test_a_table_that_changed_meanwhile_is_left_alone(tmp_path: Path) -> None:
    path = write(tmp_path, DAMAGED.replace("03-Sep", "20-29"))
    with pytest.raises(InputError, match="changed"):
        repair_csv(path, damages(path))
    assert [p.name for p in tmp_path.iterdir()] == ["labels.csv"]


def test_a_failed_write_leaves_the_table_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path, DAMAGED)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(InputError, match="No space left"):
        repair_csv(path, damages(path))
    assert path.read_bytes() == DAMAGED.encode()
    assert [p.name for p in tmp_path.iterdir()] == ["labels.csv"]


# -- Words that were turned into dates --------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "meant"),
    [
        ("03-Sep", "3-9"),
        ("3-Sep", "3-9"),
        ("09-Mar", "3-9"),
        ("9-Mar", "3-9"),
        ("Mar-09", "3-9"),
        ("Mar-9", "3-9"),
        ("Sep-03", "3-9"),
        ("2024-03-09", "3-9"),
        ("2024-09-03", "3-9"),
        ("2024-03-09 00:00:00", "3-9"),
        ("3/9/2024", "3-9"),
        ("9/3/24", "3-9"),
        ("9-Mar-24", "3-9"),
        ("Oct-19", "10-19"),
        ("19-Oct", "10-19"),
        ("oct-19", "10-19"),
        ("2019-10-01", "10-19"),
        ("2024-10-19", "10-19"),
        ("10/19/2024", "10-19"),
        ("10/1/2019", "10-19"),
        ("Oct-2019", "10-19"),
    ],
)
def test_dates_that_were_fairface_ages(found: str, meant: str) -> None:
    assert original_word(found, FAIRFACE) == meant


@pytest.mark.parametrize(
    ("found", "meant"),
    [("06-Mar", "3-6"), ("3-Jun", "3-6"), ("Jul-09", "7-9"), ("Oct-14", "10-14")],
)
def test_the_vocabulary_decides(found: str, meant: str) -> None:
    assert original_word(found, FFHQ_AGING) == meant
    assert original_word(found, FAIRFACE) is None


@pytest.mark.parametrize(
    "text",
    ["3-9 ", "", "20-29", "Sep", "03-Foo", "31-Dec", "2024-13-40", "45178", "<script>", "3–9"],
)
def test_what_is_no_damage_stays(text: str) -> None:
    assert original_word(text, FAIRFACE) is None


def test_two_fitting_words_are_not_guessed_between() -> None:
    assert original_word("03-Sep", ("3-9", "9-3")) is None


@given(st.dates(datetime.date(2000, 1, 1), datetime.date(2039, 12, 31)))
def test_only_words_that_name_the_date_are_restored(date: datetime.date) -> None:
    word = original_word(date.isoformat(), FAIRFACE)
    if word is not None:
        first, second = (int(part) for part in word.split("-"))
        assert {first, second} <= {date.month, date.day, date.year % 100}


@settings(deadline=None)
@given(st.text("0123456789-/. :SeptOcMar\n", max_size=20))
def test_any_text_is_survived(text: str) -> None:
    assert original_word(text, FAIRFACE) in (None, "3-9", "10-19")
