"""Trained systems on AnimateDiff: their weights, and how these join its passes."""
