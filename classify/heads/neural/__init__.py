"""Heads that Keras trains, several at once."""
