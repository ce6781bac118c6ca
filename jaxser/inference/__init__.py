"""Inference: saved networks, and predictions and attention for recordings."""
