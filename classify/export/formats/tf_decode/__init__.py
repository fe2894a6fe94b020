"""Encoded images to pixels as TensorFlow operations, equal to `extract.pixels.decode`.

Imports `extract.pixels` alone.
"""
