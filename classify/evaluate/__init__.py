"""What a label is, how good predictions are, and how sure that is. May import `extract` and `cache`."""
