"""Diagnostics of runs: near-duplicates, label errors, accuracy by depth, baselines.

May import `classify.runs` and the rooms below it.
"""
