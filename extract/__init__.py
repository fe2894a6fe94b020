"""Images and backbones -> activations in the cache."""
