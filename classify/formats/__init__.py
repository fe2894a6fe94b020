"""File formats of an exported model, a file each: how it is written, described, and run again."""
