"""Measuring: a tracker that needs no weights, metrics on tracks and frames, and rows made without a model."""
