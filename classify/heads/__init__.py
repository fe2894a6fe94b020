"""Heads: the classifiers trained on cached rows. May import `classify.evaluate` and `classify.data`."""
