"""The rules of the hub: no sockets, no SQL, no HTTP."""

__version__ = "0.1.0"
