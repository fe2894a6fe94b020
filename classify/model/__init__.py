"""One model out: a head stacked on its networks, exported, checked, and asked about new images."""
