"""Data made of text: files, token shards, and packing documents into rows."""
