"""The folder that a sweep leaves behind. May import `classify.heads` and the rooms below it."""
