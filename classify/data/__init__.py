"""Cached rows as matrices, with labels, splits and views. May import `classify.evaluate`, `extract` and `cache`."""
