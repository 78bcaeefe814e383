"""A needle in a haystack: eight kinds of needles, by depth and length.

    python scripts/eval/niah.py --checkpoint runs/first
    python scripts/eval/niah.py --checkpoint runs/first --memorize --memorize-steps 2

The same as python train.py phase=eval checkpoint=runs/first evals=[niah]; --help lists all flags.
"""

import sys

from arguments import main

if __name__ == "__main__":
    sys.exit(main("niah", __doc__))
