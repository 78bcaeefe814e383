"""Reading text with a trained model: sessions, memory policies, memorizing at test time, samples."""
