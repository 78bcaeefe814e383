"""Read a sequence of domains: forgetting and transfer.

    python scripts/eval/continual.py --checkpoint runs/first
    python scripts/eval/continual.py --checkpoint runs/first --memorize --memorize-steps 2

The same as python train.py phase=eval checkpoint=runs/first evals=[continual]; --help lists all flags.
"""

import sys

from arguments import main

if __name__ == "__main__":
    sys.exit(main("continual", __doc__))
