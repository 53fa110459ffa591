"""Intervals and tests that respect faces and seeds. Numpy and scipy only."""
