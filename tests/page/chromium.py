"""The browser that the tests drive, the system's own; as a program, whether there is one."""

from __future__ import annotations

import shutil
import sys

NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
MISSING = (
    f"The page's tests need a Chromium on the PATH (one of {', '.join(NAMES)}), and there is none. "
    "On Debian or Ubuntu: apt-get install chromium"
)


def find() -> str | None:
    """Its path."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


def main() -> int:
    """0 where there is one; 1 and what is missing where there is none."""
    if find() is None:
        sys.stderr.write(f"{MISSING}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
