"""The database: versions, sessions, leases, intents. One set of transactions, two drivers (docs/database.md)."""
