"""One model out: stacked, written, checked and asked about new images.

May import `classify.runs` and the rooms below it.
"""
