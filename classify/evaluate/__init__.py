"""How good predictions are, and how sure that is. May import `classify.data`."""
