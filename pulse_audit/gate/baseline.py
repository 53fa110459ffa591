"""The other side of a rule: a run directory, or the small file that ``--write-baseline`` makes."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from pydantic import ValidationError

from pulse_audit import store
from pulse_audit.documents import read_json
from pulse_audit.files import as_json, atomic_write
from pulse_audit.gate.measure import Trial, measure
from pulse_audit.gate.record import SCHEMA_VERSION, Record
from pulse_audit.gate.rules import Rule
from pulse_audit.names import nearest
from pulse_audit.types import InputError

#: Longest baseline file in bytes.
MAX_BYTES = 2**26


def open_finished(path: Path) -> store.Run:
    """Open a run that can be judged, finished or not.

    Raises
    ------
    InputError
        If it is no run, a trial made with ``--limit``, or one whose rules decided its size.
    """
    run = store.open_run(path)
    if run.manifest.spec.limit is not None:
        raise InputError(
            f"{path}: was made with --limit {run.manifest.spec.limit}, a trial whose groups are "
            "not balanced; run it without"
        )
    rounds = run.manifest.rounds
    if rounds is not None and rounds.faces < rounds.budget:
        raise InputError(
            f"{path}: its rules decided its size (run --until-decided), which bounds of a fixed "
            f"size do not allow for; its own verdicts are in {path / 'gate'}"
        )
    return run


def read_baseline(path: Path, rules: Sequence[Rule]) -> Record:
    """Read a baseline: a finished run, or a file that `write_baseline` wrote.

    Raises
    ------
    InputError
        If it is neither, or holds no face or not what the rules need.
    """
    if path.is_dir():
        run = open_finished(path)
        samples = run.samples()
        if not run.complete or not len(samples):
            raise InputError(f"{path}: this baseline is unfinished; finish it with its run command")
        return measure(run.manifest, samples, rules, str(path)).record
    try:
        content = read_json(path, MAX_BYTES)
    except FileNotFoundError:
        raise InputError(f"{path}: no such baseline, neither a run nor a file") from None
    if not isinstance(content, dict) or "must_match" not in content:
        raise InputError(f"{path}: no baseline; make one with `check RUN --write-baseline FILE`")
    schema = content.get("schema")
    if isinstance(schema, bool) or schema != SCHEMA_VERSION:
        raise InputError(
            f"{path}: baseline of schema {schema}, this version reads "
            f"{SCHEMA_VERSION}; write it again"
        )
    if not content.get("faces") or not content.get("settings"):
        raise InputError(f"{path}: this baseline is empty; write it again")
    try:
        return Record.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "file"
        message = first["msg"].removeprefix("Value error, ")
        raise InputError(f"{path}: damaged baseline ({where}: {message}); write it again") from None


def write_baseline(path: Path, trial: Trial) -> None:
    """Write what the rules need of a run into a file that can be committed."""
    atomic_write(path, as_json(trial.record.model_dump(mode="json", by_alias=True)))


def check_match(trial: Record, baseline: Record, accepted: Collection[str], where: str) -> None:
    """Refuse a baseline that differs in more than the arm.

    Parameters
    ----------
    trial, baseline : Record
    accepted : collection of str
        Keys that may differ.
    where : str
        How messages name the baseline.

    Raises
    ------
    InputError
        Naming the first difference that is not accepted, or an accepted key that does not exist.
    """
    keys = list(dict.fromkeys([*trial.must_match, *baseline.must_match]))
    for key in accepted:
        if key not in keys:
            raise InputError(f"--accept-difference: unknown key {key!r}{nearest(key, keys)}")
    for key in keys:
        one, other = (side.must_match.get(key, "not recorded") for side in (trial, baseline))
        if one != other and key not in accepted:
            raise InputError(
                f"{where}: {key} differs: here {one}, in the baseline {other}; "
                f"--accept-difference '{key}' compares all the same"
            )


def pair_arms(
    trial: Sequence[str], baseline: Sequence[str], chosen: str | None, where: str
) -> dict[str, str]:
    """Pair arms by name, or the only one of each side.

    Parameters
    ----------
    trial, baseline : sequence of str
        Arms that a rule selects on each side.
    chosen : str or None
        The baseline's arm by ``--baseline-arm``.
    where : str
        How messages name the baseline.

    Raises
    ------
    InputError
        If some arm has no partner.
    """
    if chosen is not None:
        if len(trial) != 1:
            raise InputError(
                f"--baseline-arm {chosen}: {len(trial)} arms are on trial ({', '.join(trial)}); "
                "choose one with --arm"
            )
        return {trial[0]: chosen}
    if all(arm in baseline for arm in trial):
        return {arm: arm for arm in trial}
    if len(trial) == len(baseline) == 1:
        return {trial[0]: baseline[0]}
    missing = next(arm for arm in trial if arm not in baseline)
    raise InputError(
        f"{where}: has no arm {missing!r} (it has {', '.join(baseline) or 'none'}); name one pair "
        "with --arm and --baseline-arm"
    )
