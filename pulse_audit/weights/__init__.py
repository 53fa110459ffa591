"""Weights known by name: where they are, what is claimed of them, and fetching them."""
