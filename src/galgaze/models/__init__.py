"""Architectures, the model file, training."""
