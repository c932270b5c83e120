"""`python -m thorndike` is the command `thorndike`."""

from __future__ import annotations

import sys

from thorndike.cli import main

sys.exit(main())
