"""Stable Video Diffusion: outline and settings (torch-free), the model, and what its U-Net alone needs."""
