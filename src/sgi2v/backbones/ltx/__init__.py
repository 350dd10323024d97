"""LTX-Video image-to-video behind the contract."""
