"""A pass key in a haystack of noise, by depth and length.

    python scripts/eval/passkey.py --checkpoint runs/first
    python scripts/eval/passkey.py --checkpoint runs/first --memorize --memorize-steps 2

The same as python train.py phase=eval checkpoint=runs/first evals=[passkey]; --help lists all flags.
"""

import sys

from arguments import main

if __name__ == "__main__":
    sys.exit(main("passkey", __doc__))
