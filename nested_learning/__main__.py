"""`python -m nested_learning`: the same as `python train.py`."""

import sys

from nested_learning.command.main import main

if __name__ == "__main__":
    sys.exit(main())
