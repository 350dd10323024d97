"""CogVideoX image-to-video behind the contract."""
