"""Results as text for people. Nothing here prints.

May import what `commands` may.
"""
