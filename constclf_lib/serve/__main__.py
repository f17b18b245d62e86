"""`python -m constclf_lib.serve serve`, where the command `constclf` is not on the path."""

import sys

from .command import main

sys.exit(main())
