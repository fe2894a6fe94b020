"""The run folder. May import `classify.heads` and the rooms below it."""
