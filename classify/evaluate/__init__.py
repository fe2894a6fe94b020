"""Kinds of labels, scores of predictions, and their uncertainty. May import `extract` and `cache`."""
