"""Open trained runs; export models to directories and open those, also with Hugging Face transformers."""
