"""`python -m tests.checkpoints FAMILY PATH` writes a tiny random checkpoint."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.checkpoints import build

if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    build(sys.argv[1], Path(sys.argv[2]))
