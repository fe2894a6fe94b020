"""The head families, one file each; to add one, write its class here and add it to `classify.heads.registry`.

May import `linear` and `neural`.
"""
