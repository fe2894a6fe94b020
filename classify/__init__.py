"""Cached activations to heads, a run folder and one stacked model. May import `extract` and `cache`."""
