"""File formats of an exported model, a file each; to add one, write its `Format` here and a line in `registry`.

May import what `classify.export` may.
"""
