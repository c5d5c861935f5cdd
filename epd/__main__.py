"""`python -m epd` is the `epd` command."""

import sys

from epd.cli.main import main

sys.exit(main())
