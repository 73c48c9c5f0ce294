"""The SQLite store: one file, one owner, no server beside our own."""

from multihost.store.sqlite.store import SQLiteStore, open_store

__all__ = ["SQLiteStore", "open_store"]
