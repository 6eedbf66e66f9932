"""`python -m llamaduo` is the `llamaduo` command."""

import sys

from llamaduo.cli import main

sys.exit(main())
