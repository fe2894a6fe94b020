"""The commands, a file for each stage, and what they share."""
