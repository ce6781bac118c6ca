"""Corpus readers: one module per corpus, each with `read(root) -> Reading`."""
