"""Floor 3: the models; one file per option of `configs/model`."""
