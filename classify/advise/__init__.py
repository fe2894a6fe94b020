"""Which scenario the data is in, and what to try next. May import `classify.diagnose` and the rooms below it."""
