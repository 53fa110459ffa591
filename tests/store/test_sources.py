"""The tables of ``sources/`` from anyone: types, words, keys and numbers are checked on reading."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pulse_audit import store
from pulse_audit.types import InputError

FACES, ARM = ("a.jpg", "b.jpg"), "pulse:toy"
MANIFEST = {
    "schema": store.SCHEMA_VERSION,
    "spec": {"scales": [8], "conditions": ["clean"]},
    "dataset": {"vocabulary": {"race": ["White", "Black"]}},
    "attributes": {"vocabulary": {"race": ["White", "Black"]}},
    "sources": {"guided_by": ["race"]},
    "arms": {ARM: {"kind": "pulse"}},
    "faces": [{"id": name} for name in FACES],
    "units": [
        {"id": "u0", "arm": ARM, "condition": "clean", "scale": 8, "draws": [(f, 0) for f in FACES]}
    ],
}
SEEN = {"sr_race": "White", "sr_race_p": [0.75, 0.25]}
SEARCH = {"arm": ARM, "condition": "clean", "scale": 8, "draw": 0, "feasible": True}
ROWS: dict[str, list[dict[str, Any]]] = {
    "originals": [{"face_id": f, "hr_race": "Black", "hr_race_p": [0.25, 0.75]} for f in FACES],
    "prior": [{"arm": ARM, "index": i, "seed": i, "lightness": 60.0, **SEEN} for i in (0, 1)],
    "guided": [
        {
            "face_id": f,
            **SEARCH,
            "search": "own",
            "toward": "White",
            "shown": True,
            **SEEN,
            "check_race": "White",
        }
        for f in FACES
    ],  # fmt: skip
    "uninformative": [
        {**SEARCH, "kind": "grey", "about": about, "input": "grey", "status": "ok", **SEEN}
        for about in ("0.25", "0.5")
    ],
}


def with_tables(folder: Path, name: str = "", change: Any = None) -> store.Run:
    """A run whose tables are sound but for one, which is changed as a `pyarrow.Table`."""
    run = store.Run(folder, store.check_manifest(MANIFEST))
    (folder / "sources").mkdir()
    for table, rows in ROWS.items():
        content = pa.Table.from_pylist(rows, store.source_schema(table, ["race"], ["race"]))
        content = change(content) if table == name else content
        pq.write_table(content, folder / "sources" / f"{table}.parquet")
    return run


def column(name: str, values: list[Any], kind: pa.DataType | None = None) -> Any:
    """Replace a column by values, of a type of their own."""
    return lambda table: table.set_column(
        table.schema.get_field_index(name), name, pa.array(values, kind)
    )


def test_sound_tables_come_back_as_they_were_written(tmp_path: Path) -> None:
    tables = with_tables(tmp_path).source_tables()
    assert tables is not None
    assert tables["guided"].check_race.tolist() == ["White", "White"]
    assert tables["prior"].sr_race_p[0].tolist() == [0.75, 0.25]
    assert tables["originals"].face_id.tolist() == list(FACES)


def test_a_second_model_that_checks_nothing_leaves_no_columns(tmp_path: Path) -> None:
    run = with_tables(tmp_path, "guided", lambda t: t.drop_columns(["check_race", "check_race_p"]))
    tables = run.source_tables()
    assert tables is not None and "check_race" not in tables["guided"]


@pytest.mark.parametrize(
    ("name", "change", "problem"),
    [
        ("originals", lambda t: t[:1], "1 rows, not 2"),
        ("originals", column("face_id", ["a.jpg", "a.jpg"]), "row twice"),
        ("originals", column("face_id", ["a.jpg", "c.jpg"]), "'face_id' holds a word"),
        ("originals", column("hr_race", ["<b>", None]), "'hr_race' holds a word"),
        ("originals", column("hr_race_p", [[1.0], None]), "'hr_race_p' has not one number"),
        ("originals", column("hr_race_p", [[0.5, 0.5, 0.0]] * 2), "values"),
        ("prior", column("lightness", [float("inf"), 1.0]), "'lightness' holds an infinite"),
        ("prior", column("lightness", ["light", "1"]), "'lightness' is not one column of type"),
        ("prior", column("sr_race_p", [[0.5, float("-inf")]] * 2), "'sr_race_p' holds an infinite"),
        ("prior", column("arm", ["bicubic", ARM]), "'arm' holds a word"),
        ("prior", column("arm", [None, ARM], pa.string()), "'arm' holds a null"),
        ("prior", column("index", [0, 0]), "row twice"),
        ("prior", column("index", [0.0, 1.0]), "'index' is not one column of type"),
        ("prior", lambda t: t.drop_columns(["sr_race"]), "'sr_race' is missing"),
        ("prior", lambda t: t.append_column("arm", t["arm"]), "'arm' is not one column"),
        ("guided", column("feasible", [True, None]), "'feasible' holds a null"),
        ("guided", column("shown", ["yes", "no"]), "'shown' is not one column"),
        ("guided", column("scale", [8, 4]), "'scale' is not that"),
        ("guided", column("condition", ["clean", "fog"]), "'condition' holds a word"),
        ("guided", column("check_race", ["White", "x"]), "'check_race' holds a word"),
        ("guided", column("search", ["own", "other"]), "'search' holds a word"),
        ("guided", column("search", ["own", None]), "'search' holds a null"),
        ("guided", lambda t: pa.concat_tables([t, t]), "row twice"),
        ("uninformative", column("status", ["fine", "ok"]), "'status' holds a word"),
        ("uninformative", column("kind", ["black", "grey"]), "'kind' holds a word"),
        ("uninformative", lambda t: pa.concat_tables([t, t]), "row twice"),
    ],
)
def test_a_foreign_table_costs_one_line(
    tmp_path: Path, name: str, change: Any, problem: str
) -> None:
    with pytest.raises(InputError, match=rf"sources/{name}\.parquet: .*{problem}") as error:
        with_tables(tmp_path, name, change).source_tables()
    assert "\n" not in str(error.value)


def test_a_file_that_is_no_table_costs_one_line(tmp_path: Path) -> None:
    run = with_tables(tmp_path)
    (tmp_path / "sources" / "originals.parquet").write_bytes(b"PAR1 not a table")
    with pytest.raises(InputError, match=r"originals\.parquet: cannot be read"):
        run.source_tables()


def test_without_all_tables_there_are_none(tmp_path: Path) -> None:
    run = with_tables(tmp_path)
    (tmp_path / "sources" / "prior.parquet").unlink()
    assert run.source_tables() is None


def test_tables_that_the_manifest_does_not_describe_are_refused(tmp_path: Path) -> None:
    run = with_tables(tmp_path)
    run.manifest.sources = None
    with pytest.raises(InputError, match=r"sources: the manifest describes no"):
        run.source_tables()


def test_a_withdrawn_face_leaves_every_table_and_its_searches_pictures(tmp_path: Path) -> None:
    gone, stays = FACES
    folder = tmp_path / "run"
    folder.mkdir()

    def with_pictures(table: pa.Table) -> pa.Table:
        names = [f"images/guided/{Path(face).stem}.png" for face in FACES]
        return table.set_column(table.column_names.index("image"), "image", pa.array(names))

    run = with_tables(folder, "guided", with_pictures)
    run.write_manifest()
    for name in ("a", "b"):
        run.write_image(f"images/guided/{name}.png", name.encode())
    with store.withdrawn(folder, [gone]):
        pass
    after = store.open_run(folder)
    tables = after.source_tables()
    assert tables is not None
    for name in ("originals", "guided"):
        assert list(tables[name].face_id) == [stays]
    # What is of a generator, and of no face, stays.
    assert len(tables["prior"]) == len(tables["uninformative"]) == 2
    assert (folder / "images/guided/b.png").read_bytes() == b"b"
    assert not (folder / "images/guided/a.png").exists()
    assert not [p for p in folder.rglob("*") if p.is_file() and gone.encode() in p.read_bytes()]
