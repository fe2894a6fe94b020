"""Where images come from: which there are, their labels, splits and digests. May import `cache` and `extract.pixels`."""
