"""Rounds of faces: a plan up to a budget, of which a run carries out one round after the other."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pulse_audit.harness.spec import AuditSpec
from pulse_audit.names import sampled_generator
from pulse_audit.types import InputError

if TYPE_CHECKING:
    from pulse_audit.gate.until import UntilDecided
    from pulse_audit.store import Manifest


def until_decided(
    spec: AuditSpec,
    rules: Path | None,
    budget: int | None,
    baseline: Path | None,
    looks: int | None = None,
) -> UntilDecided | None:
    """Read what ``run`` was given; None where it samples a fixed number of faces.

    Raises
    ------
    InputError
        If the options do not go together, or as `check_rounds` and `UntilDecided`.
    """
    if rules is None:
        given = {"--budget": budget, "--baseline": baseline, "--looks": looks}
        if name := next((name for name, value in given.items() if value is not None), None):
            raise InputError(f"{name} needs --until-decided RULES.yaml")
        return None
    if budget is None:
        raise InputError("--until-decided needs --budget N: faces of each group, at most")
    check_rounds(spec, budget, looks)
    from pulse_audit.gate.until import UntilDecided

    return UntilDecided(rules, budget, baseline, looks)


def check_rounds(spec: AuditSpec, budget: int, looks: int | None = None) -> None:
    """Refuse what cannot be sampled in rounds: InputError."""
    reasons = {
        "--limit": spec.limit is not None and "it ends a run before its groups are balanced",
        "--sources": spec.sources and "its searches are about a whole run",
        spec.dataset: sampled_generator(spec.dataset) is not None
        and "the faces of a generator's prior are drawn for a whole run",
    }
    for what, reason in reasons.items():
        if reason:
            raise InputError(f"--until-decided does not go with {what}: {reason}")
    if budget < spec.per_group:
        raise InputError(
            f"--budget {budget} is less than a round of --per-group {spec.per_group} faces"
        )
    rounds = -(-budget // spec.per_group)
    if looks is not None and looks > rounds:
        raise InputError(
            f"--looks {looks} are more than the {rounds} rounds of --per-group {spec.per_group} "
            f"faces up to --budget {budget}; lower --looks or --per-group"
        )


def check_same_budget(existing: Manifest, budget: int | None, looks: int | None, out: Path) -> None:
    """Refuse to resume with another budget or schedule: both were fixed before the first face."""
    before = existing.rounds
    was, now = (
        "a fixed number of faces"
        if faces is None
        else f"--until-decided and --budget {faces}" + (f" --looks {n}" if n else "")
        for faces, n in (
            (before.budget if before else None, before.looks if before else None),
            (budget, looks),
        )
    )
    if was != now:
        raise InputError(f"{out}: holds a run of {was}, not of {now}; choose another --out")


def first_rounds(plan: Manifest, number: int) -> Manifest:
    """Return the manifest of the first rounds of a whole plan."""
    assert plan.rounds is not None
    rounds = plan.rounds.model_copy(update={"planned": number})
    cells = len(plan.faces) // plan.rounds.budget
    faces = plan.faces[: cells * rounds.faces]
    ids = {face.id for face in faces}
    units = [unit for unit in plan.units if unit.draws[0][0] in ids]
    return plan.model_copy(update={"faces": faces, "units": units, "rounds": rounds})
