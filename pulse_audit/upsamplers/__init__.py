"""Upsamplers under audit other than PULSE."""
