"""Image sources: the images of DATA with their labels, splits and digests. May import `cache` and `extract.pixels`."""
