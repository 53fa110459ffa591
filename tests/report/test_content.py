import math

import pandas as pd

from pulse_audit import store
from pulse_audit.report.content import Stems, agreement_tables, flattened, left_out
from pulse_audit.report.screen import matrices
from pulse_audit.summary.schema import SubsetKey, Summary, make_row
from pulse_audit.types import Estimate


def test_file_names_made_of_labels_are_harmless():
    stem = Stems().make("../../etc/passwd", "a b:c", "x8", "race,gender")
    assert stem == "etc-passwd_a-b-c_x8_race-gender"


def test_file_names_never_repeat():
    stems = Stems()
    assert [stems.make("pulse:a"), stems.make("pulse-a"), stems.make("pulse/a")] == [
        "pulse-a",
        "pulse-a-2",
        "pulse-a-3",
    ]
    assert stems.make("///") == "table"


def test_nested_values_become_named_lines():
    nested = {"search": {"steps": 100, "noise": [1, 2]}, "keep": True, "n": 1, "limit": None}
    assert flattened(nested) == [
        ("search.steps", "100"),
        ("search.noise", "1, 2"),
        ("keep", "yes"),
        ("n", "1"),
        ("limit", "none"),
    ]
    assert flattened({"layers": [{"a": 0}, {"a": False}]}) == [
        ("layers.0.a", "0"),
        ("layers.1.a", "no"),
    ]


def manifest(**changes):
    content = {
        "schema": 1,
        "dataset": {"vocabulary": {}},
        "arms": {},
        "units": [],
        "spec": {"group_by": [["skin_tone"], ["race"]]},
        "faces": [
            {"id": "1", "labels": {"race": "White"}},
            {"id": "2", "labels": {"race": "Black"}},
        ],
        "skipped": [
            {"id": "3", "labels": {"race": "Black"}, "reason": "broken"},
            {"id": "4", "labels": {"race": "White"}, "reason": "as 1", "kind": "duplicate"},
        ],
        "prepared": {},
        **changes,
    }
    return store.check_manifest(content)


def test_faces_left_out_are_counted_by_the_first_label_grouping():
    samples = pd.DataFrame({"face_id": ["1", "1", "2"], "hr_face_found": [True, True, False]})
    none = {"unreadable": 0, "duplicate": 0, "contradictory": 0}
    assert left_out(manifest(), samples) == [
        {"group": "White", "faces": 1, **none, "duplicate": 1, "no_face": 0},
        {"group": "Black", "faces": 1, **none, "unreadable": 1, "no_face": 1},
    ]


def test_a_detector_that_did_not_run_is_not_a_count_of_zero():
    samples = pd.DataFrame({"face_id": ["1"], "hr_face_found": [None]})
    assert {row["no_face"] for row in left_out(manifest(), samples)} == {None}


def test_agreement_of_the_models_is_a_table_a_group() -> None:
    key = SubsetKey("pulse:a", "clean", 8)
    known = Estimate(0.75, 0.5, 0.9, 10, 20, "Wilson")
    alone = Estimate(0.5, math.nan, math.nan, 1, 2, "too few faces")
    rows = [
        make_row(key, metric, "race", "A", estimate, correction=correction)
        for metric, estimate in (("model_agreement", known), ("model_kappa", alone))
        for correction in ("raw", "original_baseline")
    ]
    (table,) = agreement_tables(Summary(schema=3, estimates=rows, unavailable={}, findings=[]))
    assert table.title == "pulse:a, race, clean, x8"
    assert table.lines == [("A", "75 [50, 90]", "0.50 [–, –]")]


def shifts(grade):
    """A shift matrix of two groups, raw and corrected, and that of the originals."""
    rows = []
    for correction, values in (("raw", (0.6, 0.4)), ("corrected", (0.9, 0.2)),
                               ("original_baseline", (0.8, 0.2))):  # fmt: skip
        for group in ("White", "Black"):
            for to_group, value in zip(("White", "Black"), values, strict=True):
                key = SubsetKey("pulse:g", "clean", 8)
                estimate = Estimate(value, 0.0, 1.0, 9, 9, "")
                detail = {"grade": grade} if correction == "corrected" else None
                made = make_row(key, "shift", "race", group, estimate, detail=detail)
                rows.append(made.model_copy(update={"to_group": to_group,
                                                    "correction": correction}))  # fmt: skip
    return Summary(schema=3, estimates=rows, unavailable={}, findings=[])


def test_a_matrix_is_corrected_only_where_the_correction_supports_claims():
    run = manifest(arms={"pulse:g": {"kind": "pulse"}})
    usable, originals = matrices(run, shifts("usable"), ("clean", 8), "race")
    assert usable.note.startswith("corrected") and usable.cells[0] == [90, 20]
    weak, _ = matrices(run, shifts("weak"), ("clean", 8), "race")
    assert weak.note.startswith("as classified") and weak.cells[0] == [60, 40]
    tones = shifts("weak").estimates
    tones = [r.model_copy(update={"group_by": "skin_tone"}) for r in tones if r.correction == "raw"]
    measured = shifts("weak").model_copy(update={"estimates": tones})
    (tone,) = matrices(run, measured, ("clean", 8), "skin_tone")
    assert tone.note == "as measured on the pixels"
    assert originals.title == "originals" and originals.cells[0] == [80, 20]
