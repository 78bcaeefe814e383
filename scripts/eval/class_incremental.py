"""Learn classes task after task: accuracy over all of them, and forgetting.

    python scripts/eval/class_incremental.py --checkpoint runs/first
    python scripts/eval/class_incremental.py --checkpoint runs/first --memorize --memorize-steps 2

The same as python train.py phase=eval checkpoint=runs/first evals=[class_incremental]; --help lists all flags.
"""

import sys

from arguments import main

if __name__ == "__main__":
    sys.exit(main("class_incremental", __doc__))
