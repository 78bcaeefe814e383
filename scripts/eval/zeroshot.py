"""Multiple choice and cloze questions without examples, through lm-evaluation-harness.

    python scripts/eval/zeroshot.py --checkpoint runs/first
    python scripts/eval/zeroshot.py --checkpoint runs/first --memorize --memorize-steps 2

The same as python train.py phase=eval checkpoint=runs/first evals=[zeroshot]; --help lists all flags.
"""

import sys

from arguments import main

if __name__ == "__main__":
    sys.exit(main("zeroshot", __doc__))
