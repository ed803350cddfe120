"""Measures this server beside what a user would pick instead. Explained in docs/performance.md."""
