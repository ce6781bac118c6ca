"""The demo corpus: its plan, its speech, its files, and the best possible accuracies on it."""
