"""Images and backbones to activations in the cache. May import `cache`."""
