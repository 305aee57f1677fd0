"""Fruits!: pictures of fruit in, feature vectors and their principal components out."""

__version__ = "0.1.0"
