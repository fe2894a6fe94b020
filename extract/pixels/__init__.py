"""Bytes of an image file to oriented RGB pixels, in processes of their own. Imports nothing of ours but `cache`."""
