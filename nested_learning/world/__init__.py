"""The processes that train together, and what they send each other: the only importer of torch.distributed."""
