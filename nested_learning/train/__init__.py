"""The training loop and what it needs: runs, recovery, precision, compiling, validation."""
