"""Pure rules: no I/O, no event loop, no clock (``now`` is an argument); standard library only, croniter in windows."""
