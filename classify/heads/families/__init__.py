"""The head families, a file each; to add one, write its class here and a line in `classify.heads.registry`.

May import `linear` and `neural`.
"""
