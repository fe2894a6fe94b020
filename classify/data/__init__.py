"""Rows of the cache as matrices, with labels, splits and views. Imports no other room of `classify`."""
