"""The gate: rules on a run, alone or against a baseline, and verdicts that have error rates."""
