"""Where finished runs are logged as well, a file each, for those who look at all their experiments in one place."""
