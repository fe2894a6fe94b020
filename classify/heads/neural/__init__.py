"""Heads trained with Keras, several at once.

May import `linear`.
"""
