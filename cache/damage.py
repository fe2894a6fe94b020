"""Why a file was not served."""

from __future__ import annotations


class Damaged(Exception):
    """A file that must not be served; the text is the reason."""


class Unreadable(Damaged):
    """A file that could not be read this time, or here; it may be sound, so it stays where it is."""
