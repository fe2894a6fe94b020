"""The sections of a report, a file each.

May import what `classify.report` may.
"""
