"""Training configs: one file per paper, with the values of its tables."""
