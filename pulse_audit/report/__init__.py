"""The written audit: HTML page, figures and tables, rendered from stored samples without torch."""
