"""Tokens, password hashes and rate limits: the mechanisms, not the decisions (those are in domain/permissions)."""
