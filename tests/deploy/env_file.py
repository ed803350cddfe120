"""Makes systemd/tornado-backups.env from the table of options: ``python -m tests.deploy.env_file > FILE``."""

from __future__ import annotations

import textwrap
from itertools import groupby

from tornado_backups.config.settings_table import OPTIONS

HEAD = """\
# Settings of tornado-backups.service: every option with its default, commented out. docs/configuration.md explains
# them. Install as /etc/tornado-backups/tornado-backups.env, owned by root, mode 0600; afterwards
# `systemctl restart tornado-backups`. Secrets stand in credentials.conf instead.
# The unit itself sets BR_CONFIG_PROVIDER=filesystem and BR_CONFIG_LOCAL_PATH=/etc/tornado-backups/config;
# what stands here wins.
"""


def env_file() -> str:
    """Return the text of the file."""
    lines = [HEAD]
    for group, options in groupby(OPTIONS, lambda option: option.group):
        lines.append(f"# -- {group.lower()} {'-' * (110 - len(group))}\n")
        for option in options:
            about = f"{option.switch}: {option.meaning}. Allowed: {option.allowed}."
            if not isinstance(option.default, str):
                about += f" Default: {option.shown_default}."
            lines += textwrap.wrap(
                about, 115, initial_indent="# ", subsequent_indent="# ", break_long_words=False, break_on_hyphens=False
            )
            if option.secret:
                lines.append("# A secret: name its file in credentials.conf.")
            lines.append(f"#{option.env}={option.default if isinstance(option.default, str) else ''}\n")
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    print(env_file(), end="")
