"""`python -m sgi2v.cli`: the same as the command sgi2v."""

import sys

from sgi2v.cli import main

sys.exit(main())
