"""Versions, in one place."""

__version__ = "0.1.0"

API_VERSION = "1.2"
"""Version of the schema in protos/: the major number is the package's (`v1`), a minor step only adds."""
