"""Datasets: shards, manifests, folds, leaks, normalisation and batches."""
