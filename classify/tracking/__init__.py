"""Trackers that complete runs are logged to, one file each. May import `classify.runs` and the rooms below it."""
