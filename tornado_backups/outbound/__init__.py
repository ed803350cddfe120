"""Calls to the outside: the one HTTP client for webhooks and pings."""
