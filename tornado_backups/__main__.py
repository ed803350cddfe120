"""``python -m tornado_backups``: the same as the command ``tornado-backups``."""

import sys

from tornado_backups.cli import main

sys.exit(main())
