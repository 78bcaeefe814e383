"""Perplexity of books, or other long documents, by position.

    python scripts/eval/pg19.py --checkpoint runs/first --path books/ --length-factor null
    python scripts/eval/pg19.py --checkpoint runs/first --memorize --memorize-steps 2

The same as python train.py phase=eval checkpoint=runs/first evals=[perplexity]; --help lists all flags.
"""

import sys

from arguments import main

if __name__ == "__main__":
    sys.exit(main("perplexity", __doc__))
