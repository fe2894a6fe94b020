"""Training beyond the head: the layers above a cut from cached maps, or the whole network from images.

May import every other room of `classify`.
"""
