"""Layers that several networks share: recurrence, attention, pooling, convolution."""
