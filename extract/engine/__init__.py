"""One pass over the images: decode, forward, store; only what is missing. May import every other room of `extract`."""
