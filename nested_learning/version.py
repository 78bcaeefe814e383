"""The version of the package, alone, so that every file may read it."""

__version__ = "0.1.0"
