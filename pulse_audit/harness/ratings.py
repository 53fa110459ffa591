"""People's ratings of a run: the items of a kit drawn, and its answers read back. No torch."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import pandas as pd

from pulse_audit import store
from pulse_audit.datasets.tables import original_word, parse_csv, read_text
from pulse_audit.names import nearest
from pulse_audit.report.kit import write_kit
from pulse_audit.seeding import fingerprint, hexdigest, sha256
from pulse_audit.store import Answer, Manifest, RatingItem, RatingKey, Ratings
from pulse_audit.store.ratings import TASKS, Task
from pulse_audit.summary.groups import assign
from pulse_audit.types import InputError

#: Columns of the CSV that a kit exports.
COLUMNS = ("kit", "rater", "task", "item", "answer")
#: Largest CSV in bytes: a hundred thousand answers.
MAX_BYTES = 2**23
#: Characters with which a spreadsheet begins a formula; a word that begins so has ' before it.
FORMULA = ("=", "+", "-", "@")
MOST_RATERS = 1000


@dataclass(frozen=True)
class KitOptions:
    """What a kit holds: at most ``items`` of each task; empty tasks, arms and conditions: all."""

    tasks: Sequence[str] = ()
    items: int = 60
    raters: Sequence[str] = ("rater-1", "rater-2", "rater-3", "rater-4", "rater-5")
    seed: int = 0
    arms: Collection[str] = ()
    conditions: Collection[str] = ()


def write_rating_kit(
    run_path: Path,
    tasks: Sequence[str] | None,
    raters: int,
    names: Sequence[str],
    out: Path | None,
    **options: Any,
) -> dict[str, Any]:
    """Draw a kit and write its page and key; errors as `draw_key` and `write_kit`.

    Parameters
    ----------
    run_path : Path
    tasks : sequence of str, optional
    raters : int
        Raters who are numbered, where no ``names`` are given.
    names : sequence of str
    out : Path, optional
        The page; not in place of a file of the run.
    **options
        Others of `KitOptions`.

    Returns
    -------
    dict
        ``kit``, ``page``, ``key`` (its path), ``raters``, and ``items``, the number of each task.
    """
    chosen = names or [f"rater-{number}" for number in range(1, raters + 1)]
    with store.locked(run_path, make=False) as run:
        assert run is not None
        kit = KitOptions(tasks=tasks or (), raters=chosen, **options)
        key = draw_key(run.manifest, run.samples(), kit)
        page = write_kit(run, key, out)
        return {
            "kit": key.kit,
            "page": str(page),
            "key": str(run.key_path(key.kit)),
            "raters": key.raters,
            "items": dict(Counter(item.task for item in key.items)),
        }


def draw_key(manifest: Manifest, samples: pd.DataFrame, options: KitOptions) -> RatingKey:
    """Draw the items of a kit, balanced over groups, settings and arms.

    A face under one condition and scale is shown under every arm, the same draw of each; faces come
    in the order of a digest of the seed, one of every group and setting before a second. The kit
    ends with a whole round of them where there is room for one. Items are numbered in an order
    that is drawn, and two arms are left and right equally often.

    Raises
    ------
    InputError
        If something is named that the run has not, no image of every arm is kept, ``items`` is too
        small for one face, or people may withdraw their consent: a kit leaves the run.
    """
    if manifest.dataset.revocable:
        raise InputError(
            f"rate: people in {manifest.dataset.title or manifest.dataset.name} may withdraw their "
            "consent, and a kit with their photos would be out of reach; no kit is made"
        )
    arms = _known("--arm", options.arms, list(manifest.arms))
    settings = _known("--condition", options.conditions, manifest.spec.conditions)
    raters = _rater_names(options.raters)
    attribute = next(
        (c for g in manifest.spec.groupings for c in g if manifest.dataset.vocabulary.get(c)), None
    )
    tasks = _tasks(options.tasks, arms, attribute)
    cells = _cells(manifest, samples[samples["condition"].isin(settings)], arms, options.seed)
    rounds = len({cell.group for cell in cells})

    numbers = random.Random(fingerprint(options.seed, "rating kit", manifest.fingerprint))
    items: list[RatingItem] = []
    for task in tasks:
        shown: list[list[str]] = {
            "mos": [[], *([arm] for arm in arms)],
            "group": [[arm] for arm in arms],
            "choice": [list(pair) for pair in combinations(arms, 2)],
        }[task]
        most = options.items // len(shown)
        if not most:
            raise InputError(
                f"--items {options.items}: the task {task} shows a face {len(shown)} times; "
                f"wanted at least {len(shown)}"
            )
        # Whole rounds, so that every group has the same number of faces, while it has any.
        chosen = [c for c in cells if c.turn < most // rounds] if most >= rounds else cells[:most]
        drawn = [(cell, list(each)) for cell in chosen for each in shown]
        if task == "choice":
            _swap_half(drawn, numbers)
        numbers.shuffle(drawn)
        items += [
            RatingItem(
                # of the place in the drawn order alone: it says nothing of what is shown
                id=f"i{hexdigest(options.seed, manifest.fingerprint, task, place)[:8]}",
                task=task,
                face=cell.face,
                condition=cell.condition,
                scale=cell.scale,
                draw=cell.draw,
                arms=each,
            )
            for place, (cell, each) in enumerate(drawn)
        ]
    words = manifest.dataset.vocabulary[attribute] if attribute and "group" in tasks else []
    content = json.dumps([item.model_dump() for item in items])
    return RatingKey(
        kit=f"k{hexdigest(manifest.fingerprint, options.seed, *raters, content)[:8]}",
        run=manifest.fingerprint,
        seed=options.seed,
        raters=raters,
        attribute=attribute if words else None,
        words=words,
        items=items,
    )


@dataclass(frozen=True)
class _Cell:
    """A draw of a face under a condition and scale that every arm has.

    ``group`` is that of the face and the setting, ``turn`` how many of it come before.
    """

    face: str
    condition: str
    scale: int
    draw: int
    group: str
    turn: int


def _cells(
    manifest: Manifest, samples: pd.DataFrame, arms: Sequence[str], seed: int
) -> list[_Cell]:
    """Draws of which every arm kept an image, in the order in which a kit takes them."""
    kept = samples[samples["image"].notna() & samples["arm"].isin(arms)]
    key = ["face_id", "condition", "scale", "draw"]
    frame = (
        kept.drop_duplicates([*key, "arm"])
        .groupby(key, as_index=False)
        .agg(arms=("arm", "size"), row=("arm", lambda of: of.index[0]))
    )
    frame = frame[frame["arms"] == len(arms)]
    if frame.empty:
        kept_images = manifest.spec.keep_images
        raise InputError(
            f"this run keeps no image of the same face under {' and '.join(arms)} (--keep-images "
            f"{kept_images}); a kit shows images: run again with --keep-images all"
        )
    # Groups of the first grouping, under each condition and scale.
    columns = next(iter(manifest.spec.groupings), [])
    named = assign(samples.loc[frame["row"]], columns).to_numpy() if columns else ""
    settings = frame["condition"] + " " + frame["scale"].astype(str)
    frame["group"] = settings + " " + named
    frame["digest"] = [
        hexdigest(seed, "rated", *map(str, row)) for row in frame[key].itertuples(index=False)
    ]
    # A face once before it is shown again, a group once before its second face.
    frame = frame.sort_values("digest")
    frame["again"] = frame.groupby(["face_id", "condition", "scale"]).cumcount()
    frame = frame.sort_values(["again", "digest"])
    frame["turn"] = frame.groupby("group").cumcount()
    frame = frame.sort_values(["turn", "digest"])
    return [
        _Cell(*row) for row in frame[[*key, "group", "turn"]].itertuples(index=False, name=None)
    ]


def _swap_half(drawn: list[tuple[_Cell, list[str]]], numbers: random.Random) -> None:
    """Swap left and right in half of the items of every pair of arms."""
    by_pair: dict[tuple[str, ...], list[list[str]]] = {}
    for _, pair in drawn:
        by_pair.setdefault(tuple(pair), []).append(pair)
    for pairs in by_pair.values():
        numbers.shuffle(pairs)
        # of an odd number, the one that is left over by lot
        for pair in pairs[: (len(pairs) + numbers.randrange(2)) // 2]:
            pair.reverse()


def _known(option: str, wanted: Collection[str], known: Sequence[str]) -> list[str]:
    """Names that were asked for, in the order of the run; all where none was."""
    for name in wanted:
        if name not in known:
            raise InputError(f"{option} {name!r:.80}: is not in this run{nearest(name, known)}")
    return [name for name in known if name in wanted or not wanted]


def _tasks(wanted: Sequence[str], arms: Sequence[str], attribute: str | None) -> list[Task]:
    """Tasks of a kit; those that were not asked for are left out where they cannot be."""
    reasons = {
        "choice": "" if len(arms) > 1 else "two arms are compared, and there is one",
        "group": "" if attribute else "the run groups by no label of its data set",
    }
    for name in wanted:
        if name not in TASKS:
            raise InputError(f"--tasks {name!r:.80}: is unknown{nearest(name, TASKS)}")
        if reason := reasons.get(name):
            raise InputError(f"--tasks {name}: {reason}")
    return [t for t in TASKS if (t in wanted if wanted else not reasons.get(t))]


def _rater_names(names: Sequence[str]) -> list[str]:
    """Check names of raters: plain words, each once."""
    if not 1 <= len(names) <= MOST_RATERS:
        raise InputError(f"{len(names)} raters: wanted 1 to {MOST_RATERS}")
    for name in names:
        if not re.fullmatch(r"[^\W_][\w. -]{0,39}", name) or name != name.strip():
            raise InputError(
                f"--rater {name!r:.80}: wanted at most 40 letters, digits, dots, dashes and "
                "spaces, a letter or digit first"
            )
    folded = [name.casefold() for name in names]
    twice = next((n for n, f in zip(names, folded, strict=True) if folded.count(f) > 1), None)
    if twice is not None:
        raise InputError(f"--rater {twice!r}: two raters with one name; give each their own")
    return list(names)


def keep_ratings(paths: Sequence[Path], run: store.Run) -> str:
    """Read the answers that raters exported, and keep them in the run in place of earlier ones.

    Returns
    -------
    str
        How many answers of how many raters there are.

    Raises
    ------
    InputError
        One line naming the file and the row: what `read_csv` refuses; a missing column; a kit that
        is not of this run, or another than that of the files before; an unknown rater, item, task
        or answer; an item that a rater answered twice. Nothing is written then.
    """
    key: RatingKey | None = None
    items, before = dict[str, RatingItem](), dict[tuple[str, str], str]()
    answers, files = list[Answer](), dict[str, str]()
    for path in paths:
        text = read_text(path, MAX_BYTES)
        table = parse_csv(path, text)
        if missing := [name for name in COLUMNS if name not in table.header]:
            raise InputError(
                f"{path}, row 1: no column {missing[0]!r}; give the file as the kit saved it"
            )
        places = [table.header.index(name) for name in COLUMNS]
        for number, row in enumerate(table.rows, start=2):
            where = f"{path}, row {number}"
            kit, *cells = (row[place].strip() for place in places)
            if key is None:
                key = _key_of(run, kit, where)
                items = {item.id: item for item in key.items}
            if kit != key.kit:
                raise InputError(
                    f"{where}: kit {kit!r:.80} is not {key.kit}, that of the first row"
                )
            answer = _answer(key, items, cells, where)
            given = answer.rater, answer.item
            if given in before:
                raise InputError(
                    f"{where}: {answer.rater} answered {answer.item} before, in {before[given]}; "
                    "two raters with one name, or a file given twice"
                )
            before[given] = where
            answers.append(answer)
        files[path.name if path.name not in files else str(path)] = sha256(text.encode())
    assert key is not None
    run.write_ratings(Ratings.make(key, files, answers))
    raters = len({answer.rater for answer in answers})
    return f"{len(answers):,} answers of {raters} rater{'s' if raters > 1 else ''}"


def _key_of(run: store.Run, kit: str, where: str) -> RatingKey:
    """Key of the kit that a row names."""
    if not re.fullmatch("k[0-9a-f]{8}", kit) or not run.key_path(kit).is_file():
        raise InputError(
            f"{where}: kit {kit!r:.80} is none of this run; its key lies in the run for which "
            "`pulse-audit rate` wrote it"
        )
    return run.read_rating_key(kit)


def _answer(
    key: RatingKey, items: Mapping[str, RatingItem], cells: Sequence[str], where: str
) -> Answer:
    """Check the cells of one row: rater, task, item and answer."""
    rater, task, name, text = cells
    if rater not in key.raters:
        hint = nearest(rater[:80], key.raters)
        raise InputError(f"{where}: rater {rater!r:.80} is none of this kit{hint}")
    if (item := items.get(name)) is None:
        raise InputError(f"{where}: item {name!r:.80} is none of this kit")
    if task != item.task:
        raise InputError(f"{where}: {name} is an item of the task {item.task}, not {task!r:.80}")
    allowed = key.answers(item.task)
    # a word that a spreadsheet would run as a formula comes with an apostrophe before it
    plain = text[1:] if text.startswith(tuple(f"'{c}" for c in FORMULA)) else text
    if plain in allowed:
        return Answer(rater=rater, item=name, answer=plain)
    if (word := original_word(text, allowed)) is not None:
        raise InputError(
            f"{where}: a spreadsheet turned the answer {word!r} into {text!r:.80}; give the file "
            "as the kit saved it"
        )
    wanted = "a whole number from 1 to 5" if item.task == "mos" else ", ".join(allowed)
    raise InputError(f"{where}: answer {text!r:.80} to {name}; wanted {wanted:.200}")
