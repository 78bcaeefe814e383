"""The options of `evals=`, any number of which run: one file and one configuration class for each pack."""
