"""Activation cache: immutable HDF5 shards keyed by image digest. Independent of networks and heads.

Imports no other package of humeris.
"""
