"""Object stores: one module, one implementation of :class:`tornado_backups.ports.ObjectStore`."""
