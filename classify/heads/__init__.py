"""Heads: what is trained on cached rows. May import `classify.evaluate` and `classify.data`."""
