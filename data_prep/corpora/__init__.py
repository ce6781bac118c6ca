"""Corpus readers: one module per corpus, with `read(root)`.

`data_prep/readers.py` lists them.
"""
