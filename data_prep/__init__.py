"""Preparation of corpora as datasets for training."""
