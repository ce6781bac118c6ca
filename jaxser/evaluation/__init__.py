"""Evaluation: metrics, typed results, the run folder and statistics."""
