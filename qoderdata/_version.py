"""The version of this package, once."""

__version__ = "0.2.0"
