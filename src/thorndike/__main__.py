"""`python -m thorndike` is the command `thorndike`."""

import sys

if not sys.flags.safe_path:
    del sys.path[0]  # the current folder: what lies in it is not to be taken for one of the modules below

from thorndike.cli import main

sys.exit(main())
