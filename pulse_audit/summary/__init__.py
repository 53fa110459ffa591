"""From samples to estimates: what run, report, gate and compare all read."""

from pulse_audit.summary.estimates import first_screen_of, summarise, summarise_run
from pulse_audit.summary.schema import (
    Claim,
    EstimateRow,
    Finding,
    Summary,
    json_schema,
    read,
    write,
)

__all__ = [
    "Claim",
    "EstimateRow",
    "Finding",
    "Summary",
    "first_screen_of",
    "json_schema",
    "read",
    "summarise",
    "summarise_run",
    "write",
]
