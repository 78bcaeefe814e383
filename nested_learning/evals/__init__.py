"""Evaluations of a trained model: one pack per option of `evals=`, each with its examples and its report."""
