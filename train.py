"""The one entry point: trains, evaluates and samples, by `phase=`. The installed command `nl` is the same.

python train.py model=hope optim=mixed_muon
python train.py --help
"""

import sys

from nested_learning.command.main import main

if __name__ == "__main__":
    sys.exit(main())
