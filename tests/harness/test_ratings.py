"""The items of a rating kit, and answers read back: balanced, blinded, and never trusted."""

import csv
import json
import re
from collections import Counter

import pytest

from pulse_audit import store
from pulse_audit.cli import BAD_INPUT, DONE, outcome
from pulse_audit.harness.ratings import KitOptions, draw_key, keep_ratings, write_rating_kit
from pulse_audit.report.kit import order_of, page_text
from pulse_audit.report.methods import references
from pulse_audit.summary import summarise_run
from pulse_audit.types import InputError
from tests.report.conftest import ARMS, make_run

RACES = ("White", "Black", "Indian")
THREE = {**ARMS, "pulse:other": ARMS["pulse:celeba-dcgan32"]}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Six of nine faces kept their images, two of each race, with two draws."""
    path = tmp_path_factory.mktemp("run")
    return make_run(path, per_group=3, arms=THREE, races=RACES, conditions=("clean", "jpeg:20"))


@pytest.fixture
def own(tmp_path):
    """A run that may be changed."""
    return make_run(tmp_path / "run", per_group=2, arms=THREE, races=RACES)


def key_of(run, **options):
    return draw_key(run.manifest, run.samples(), KitOptions(**options))


def answered(key, raters=None, **changes):
    """Rows of a CSV, one answer of every rater to every item."""
    rows = [
        {"kit": key.kit, "rater": rater, "task": item.task, "item": item.id,
         "answer": key.answers(item.task)[(n + place) % 2]}
        for place, rater in enumerate(raters or key.raters)
        for n, item in enumerate(key.items)
    ]  # fmt: skip
    rows[0] |= changes
    return rows


def write(path, rows):
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_items_are_balanced_over_groups_settings_and_arms(run):
    key = key_of(run, items=60)
    race = {face.id: face.labels["race"] for face in run.manifest.faces}
    for task, per_face in (("mos", 4), ("group", 3), ("choice", 3)):
        items = [item for item in key.items if item.task == task]
        # whole rounds of three races under two conditions
        assert len(items) % (6 * per_face) == 0 and 60 - 6 * per_face < len(items) <= 60
        counts = Counter((race[i.face], i.condition, tuple(sorted(i.arms))) for i in items)
        assert set(counts.values()) == {len(items) // (6 * per_face)}
    # a face again only when every face of its group was shown under the setting
    drawn = Counter((i.face, i.condition) for i in key.items if i.task == "mos" and not i.arms)
    assert max(drawn.values()) == 1
    # the original is rated too, and a pair is left and right equally often
    pairs = Counter(tuple(i.arms) for i in key.items if i.task == "choice")
    for (left, right), count in pairs.items():
        assert abs(count - pairs[right, left]) <= 1


def test_items_of_too_few_for_a_round_are_those_there_is_room_for(run):
    key = key_of(run, items=8, tasks=["mos"])
    assert Counter(len(item.arms) for item in key.items) == {0: 2, 1: 6}
    with pytest.raises(InputError, match="shows a face 4 times; wanted at least 4"):
        key_of(run, items=3)


def test_a_kit_follows_from_run_seed_and_options(run):
    one = key_of(run)
    assert one == key_of(run) and page_text(run, one) == page_text(run, one)
    other = key_of(run, seed=1)
    assert other.kit != one.kit
    assert not {item.id for item in one.items} & {item.id for item in other.items}
    # every rater has an order of their own
    orders = [order_of(one, "mos", rater) for rater in one.raters]
    assert all(sorted(each) == list(range(len(each))) for each in orders)
    assert len({tuple(each) for each in orders}) == len(orders)


def test_arms_and_conditions_are_chosen(run):
    key = key_of(run, arms=["bicubic"], conditions=["clean"])
    assert {arm for item in key.items for arm in item.arms} == {"bicubic"}
    assert {item.condition for item in key.items} == {"clean"}
    # one arm is compared with none
    assert {item.task for item in key.items} == {"mos", "group"}


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"arms": ["bicubik"]}, "'bicubik': is not in this run; did you mean bicubic?"),
        ({"conditions": ["jpeg"]}, "--condition 'jpeg': is not in this run"),
        ({"tasks": ["moss"]}, "--tasks 'moss': is unknown; did you mean mos?"),
        ({"tasks": ["choice"], "arms": ["bicubic"]}, "two arms are compared"),
        ({"raters": ["Ann", "ann"]}, "two raters with one name"),
        ({"raters": ["=1+1"]}, "a letter or digit first"),
        ({"raters": []}, "wanted 1 to 1000"),
    ],
)
def test_bad_options_cost_one_line(run, options, line):
    with pytest.raises(InputError) as error:
        key_of(run, **options)
    assert line in str(error.value) and "\n" not in str(error.value)


def test_a_run_without_images_has_no_kit(tmp_path, capsys):
    made = make_run(tmp_path / "run", per_group=1, races=RACES, images=False)
    assert outcome(["rate", str(made.path)]) == BAD_INPUT
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "keeps no image" in line and "--keep-images all" in line
    assert not (made.path / "rating").exists()


def test_an_image_that_is_gone_costs_one_line(own):
    (own.path / own.samples()["image"][0]).unlink()
    with pytest.raises(InputError, match="is missing or no image"):
        write_rating_kit(own.path, None, 2, (), None)
    assert not (own.path / "rating").exists()


def test_a_run_that_groups_by_no_label_asks_for_no_group(tmp_path):
    made = make_run(tmp_path, per_group=1, races=RACES)
    spec = made.manifest.spec.model_copy(update={"group_by": ["skin_tone"]})
    key = draw_key(made.manifest.model_copy(update={"spec": spec}), made.samples(), KitOptions())
    assert key.attribute is None and not key.words
    assert {item.task for item in key.items} == {"mos", "choice"}


def test_the_kit_and_its_answers_from_the_command_line(own, tmp_path, capsys):
    command = ["rate", str(own.path), "--items", "24", "--rater", "Xanthippe", "--rater", "Bo"]
    assert outcome([*command, "--tasks", "mos,group", "--json"]) == DONE
    written = json.loads(capsys.readouterr().out)
    assert written["items"] == {"mos": 24, "group": 18} and written["raters"] == ["Xanthippe", "Bo"]
    page = (own.path / "rating" / f"kit-{written['kit']}.html").read_bytes()
    assert outcome([*command, "--tasks", "mos,group", "--out", str(tmp_path / "kit.html")]) == DONE
    assert (tmp_path / "kit.html").read_bytes() == page

    # two raters, a file each
    key, options = own.read_rating_key(written["kit"]), []
    for rater in key.raters:
        path = write(tmp_path / f"{rater}.csv", answered(key, [rater]))
        options += ["--ratings", str(path)]
    assert outcome(["report", str(own.path), *options]) == DONE
    assert "84 answers of 2 raters: see" in capsys.readouterr().err
    summary = json.loads((own.path / "summary.json").read_text())
    assert {"mos", "mos_p", "rater_alpha"} <= {row["metric"] for row in summary["estimates"]}
    assert 'id="ratings"' in (own.path / "report" / "index.html").read_text()
    methods = (own.path / "report" / "methods.md").read_text()
    assert "2 raters who did not know the arms judged pictures" in methods
    assert set(re.findall(r"@([a-z]+\d{4}[a-z0-9]*)", methods)) <= set(
        re.findall(r"^@\w+{(\w+),", references(), re.M)
    )
    # kept in the run: no file is needed again
    assert summarise_run(store.open_run(own.path)).as_json() == summary
    # names of raters stay in the run
    for path in (own.path / "report").rglob("*"):
        assert not path.is_file() or b"Xanthippe" not in path.read_bytes()


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"item": "i00000000"}, "item 'i00000000' is none of this kit"),
        ({"answer": "6"}, "answer '6' to"),
        ({"answer": "3.5"}, "wanted a whole number from 1 to 5"),
        ({"answer": ""}, "answer ''"),
        ({"answer": "=HYPERLINK(1)"}, "answer '=HYPERLINK(1)'"),
        ({"rater": "=cmd|' /C calc'!A0"}, "is none of this kit"),
        ({"rater": "rater-9"}, "rater 'rater-9' is none of this kit; did you mean rater-"),
        ({"task": "choice"}, "is an item of the task mos, not 'choice'"),
        ({"kit": "k00000000"}, "kit 'k00000000' is none of this run"),
        ({"kit": "../../manifest"}, "kit '../../manifest' is none of this run"),
    ],
)
def test_bad_answers_cost_one_line_and_change_nothing(own, tmp_path, changes, line):
    write_rating_kit(own.path, ["mos"], 2, (), None, items=8)
    (kit,) = (path.stem.removeprefix("key-") for path in own.path.glob("rating/key-*.json"))
    path = write(tmp_path / "a.csv", answered(own.read_rating_key(kit), **changes))
    with pytest.raises(InputError) as error:
        keep_ratings([path], own)
    assert line in str(error.value) and "a.csv, row 2" in str(error.value)
    assert "\n" not in str(error.value) and own.read_ratings() is None


def test_two_raters_of_one_name_or_kits_and_other_tables_are_refused(own, tmp_path):
    for seed in (0, 1):
        write_rating_kit(own.path, ["mos"], 2, (), None, items=8, seed=seed)
    keys = [
        own.read_rating_key(path.stem.removeprefix("key-"))
        for path in sorted(own.path.glob("rating/key-*.json"))
    ]
    first, second = (write(tmp_path / f"{k.kit}.csv", answered(k)) for k in keys)
    with pytest.raises(InputError, match="answered .* before, in .*, row 2; two raters"):
        keep_ratings([first, first], own)
    with pytest.raises(InputError, match=f"is not {keys[0].kit}"):
        keep_ratings([first, second], own)
    for text, line in (
        ("kit,rater,task,item\n1,2,3,4\n", "no column 'answer'"),
        ("kit;rater;task;item;answer\n", "not separated by commas"),
        ("", "is empty"),
        (first.read_text()[:-3], "cells where the header has 5|answer ''"),
    ):
        first.write_text(text)
        with pytest.raises(InputError, match=line):
            keep_ratings([first], own)
    first.write_bytes(b"kit,rater\n\xff\n")
    with pytest.raises(InputError, match="is not UTF-8"):
        keep_ratings([first], own)


def test_words_that_spreadsheets_spoil(tmp_path):
    words = ("3-9", "10-19", "=1+1")
    made = make_run(tmp_path / "run", per_group=1, races=words)
    write_rating_kit(made.path, ["group"], 1, (), None)
    (path,) = made.path.glob("rating/key-*.json")
    key = made.read_rating_key(path.stem.removeprefix("key-"))
    rows = answered(key)
    # a spreadsheet took an age for a date
    csv_path = write(tmp_path / "a.csv", [rows[0] | {"answer": "Oct-19"}, *rows[1:]])
    with pytest.raises(InputError, match="a spreadsheet turned the answer '10-19' into 'Oct-19'"):
        keep_ratings([csv_path], made)
    # the kit writes an apostrophe before a word that begins as a formula does
    keep_ratings([write(csv_path, [rows[0] | {"answer": "'=1+1"}, *rows[1:]])], made)
    kept = made.read_ratings()
    assert kept is not None and "=1+1" in {answer.answer for answer in kept.answers}


def test_damaged_ratings_of_a_run_cost_one_line(own, tmp_path, capsys):
    write_rating_kit(own.path, ["mos"], 2, (), None, items=8)
    (key_path,) = own.path.glob("rating/key-*.json")
    key = own.read_rating_key(key_path.stem.removeprefix("key-"))
    csv_path = write(tmp_path / "a.csv", answered(key))
    keep_ratings([csv_path], own)
    path, whole = own.path / "ratings.json", json.loads((own.path / "ratings.json").read_text())
    stored = own.read_ratings()
    foreign = stored.key.model_copy(
        update={"items": [i.model_copy(update={"face": "other.jpg"}) for i in stored.key.items]}
    )
    for damaged in (
        "{",
        json.dumps({**whole, "sha256": "0" * 64}),
        json.dumps({**whole, "answers": [1]}),
        store.Ratings.make(foreign, {}, stored.answers).model_dump_json(),
        store.Ratings.make(key, {}, [stored.answers[0].model_copy(update={"answer": "7"})])
        .model_dump_json(),
    ):  # fmt: skip
        path.write_text(damaged)
        assert outcome(["report", str(own.path)]) == BAD_INPUT
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert "ratings.json" in line
    # the same answers take the place of damaged ones
    keep_ratings([csv_path], own)
    assert json.loads(path.read_text()) == whole
    # a key from elsewhere is not read
    key_path.write_text(json.dumps({**key.model_dump(), "words": ["Nobody"]}))
    with pytest.raises(InputError, match="is no key of this run"):
        keep_ratings([csv_path], own)


def test_a_withdrawn_face_takes_its_kit_and_its_answers_along(own, tmp_path):
    write_rating_kit(own.path, None, 2, (), None, items=24)
    (key_path,) = own.path.glob("rating/key-*.json")
    key = own.read_rating_key(key_path.stem.removeprefix("key-"))
    keep_ratings([write(tmp_path / "a.csv", answered(key))], own)
    gone = key.items[0].face
    with store.withdrawn(own.path, {gone}):
        pass
    assert not (own.path / "rating").exists()
    left = store.open_run(own.path).read_ratings()
    assert gone not in {item.face for item in left.key.items} and left.answers
    assert len(left.key.items) < len(key.items)


def test_a_group_that_runs_out_of_images_is_not_replaced_by_others(tmp_path):
    made = make_run(tmp_path, per_group=2, draws=1, arms=THREE, races=RACES)
    samples = made.samples()
    gone = samples["face_id"] == samples.loc[samples["label_race"] == "Black", "face_id"].iloc[0]
    samples.loc[gone, "image"] = None
    key = draw_key(made.manifest, samples, KitOptions(tasks=["group"], items=15))
    race = {face.id: face.labels["race"] for face in made.manifest.faces}
    shown = Counter(race[item.face] for item in key.items)
    # there is room for one round of three faces under three arms, and not for two
    assert shown == {"White": 3, "Black": 3, "Indian": 3}
    key = draw_key(made.manifest, samples, KitOptions(tasks=["group"], items=60))
    assert Counter(race[i.face] for i in key.items) == {"White": 6, "Black": 3, "Indian": 6}
