"""Training of the bundled model: the autoencoder, the denoiser, and the network that describes clips."""
