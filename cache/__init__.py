"""Where activations live: immutable HDF5 shards, keyed by image digest. Knows nothing of networks or heads.

Imports nothing of ours.
"""
