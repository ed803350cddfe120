"""A storage server for end-to-end encrypted backups; the rooms are drawn in docs/architecture.md."""

__version__ = "0.1.0"
