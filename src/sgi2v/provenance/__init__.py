"""Provenance of clips: credentials that are signed, a mark in the pixels, and what can be told from a file of both."""
