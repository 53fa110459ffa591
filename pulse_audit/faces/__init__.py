"""Finding, aligning and describing faces."""
