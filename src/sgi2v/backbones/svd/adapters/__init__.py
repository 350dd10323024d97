"""Trained systems on Stable Video Diffusion: a torch-free kind for each, its network, and how its weights are named."""
