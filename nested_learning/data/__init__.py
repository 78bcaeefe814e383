"""Data: rows of tokens, targets and documents; one file per option of `data=`. Torch stays out until a batch is made."""
