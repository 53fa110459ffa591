"""Evaluation faces: known data sets, their readers, and balanced draws."""
