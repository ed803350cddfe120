"""HTTP: one module per resource, one table of routes, one table from error to status."""
