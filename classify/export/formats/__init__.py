"""The file formats of exported models, a file each; to add one, write its `Format` here and add a line to `registry`.

May import what `classify.export` may.
"""
