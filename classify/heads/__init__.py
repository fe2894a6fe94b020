"""Head families: what is trained on cached rows, a file each."""
