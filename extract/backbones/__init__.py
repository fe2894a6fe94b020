"""Frozen networks: where they come from, what layers they have, and their compiled forward pass.

May import `cache` and `extract.pixels`.
"""
