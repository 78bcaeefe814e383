"""Configurations of models, which build them; one option of `model=` per YAML file in configs/model."""
