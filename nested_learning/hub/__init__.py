"""Trained models that leave or enter: opening runs, exported directories, Hugging Face."""
