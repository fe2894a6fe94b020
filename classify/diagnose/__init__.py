"""What else the features show: near-duplicates, label errors, depth, baselines.

May import `classify.runs` and the rooms below it.
"""
