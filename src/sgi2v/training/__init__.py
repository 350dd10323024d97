"""Training of the bundled model: the rendered world, the autoencoder and the denoiser."""
