"""The sections of a report, one per file.

May import what `classify.report` may.
"""
