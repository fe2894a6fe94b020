"""Text output of the commands. Nothing here prints.

May import what `commands` may import.
"""
