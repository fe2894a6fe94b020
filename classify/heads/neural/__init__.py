"""Heads that Keras trains, several at once.

May import `linear`.
"""
