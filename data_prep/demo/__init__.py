"""The demo corpus: its plan, speech and files, and its best possible accuracies."""
