"""humeris: a folder of images, a frozen pretrained network run once, many light heads, one exported model."""

__version__ = "0.1.0"
