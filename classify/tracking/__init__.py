"""Where finished runs are logged as well, a file each. May import `classify.runs` and the rooms below it."""
