"""Intervals, comparisons and power for draws nested in faces. Numpy and scipy only."""
