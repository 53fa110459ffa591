"""Fairness of outputs over groups: arrays in, estimates out. Numpy and scipy only."""
