"""Rows of the cache as matrices, with labels, splits and views. May import `classify.evaluate`, `extract` and `cache`."""
