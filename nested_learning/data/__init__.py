"""Data: rows of tokens, targets and documents; one file per option of `data=`."""
