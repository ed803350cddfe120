"""``python -m benchmarks.uploader PORT FILE AUTHORIZATION PATH…``: upload to every path, again and again."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

from benchmarks.client import Connection


def main() -> None:
    """Upload in one thread for each path."""
    port, file, authorization, *paths = sys.argv[1:]

    def upload(path: str) -> None:
        while True:
            with Connection.to(int(port)) as connection:
                connection.send_file("POST", path, Path(file), {"Authorization": authorization})

    for path in paths:
        threading.Thread(target=upload, args=(path,)).start()


if __name__ == "__main__":
    main()
