"""The Python face of classification: strings, paths and keyword settings in, the typed core behind.

May import every room of `classify` below it, `extract` and `cache`.
"""
