"""Decoding of image files to oriented RGB pixels, in worker processes. Imports only `cache` of humeris."""
