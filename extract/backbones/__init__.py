"""Frozen networks: their sources, their layers and their compiled forward pass.

May import `cache` and `extract.pixels`.
"""
