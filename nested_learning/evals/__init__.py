"""What a trained model is asked: one pack of questions per option of `evals=`, each answered by a report."""
