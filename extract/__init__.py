"""Compute activations of images with backbones and store them in the cache. May import `cache`."""
