"""Wan 2.1 and 2.2 image-to-video behind the contract."""
