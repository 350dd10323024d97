"""Slow, literal twins of the fast code: written from the methods' formulas, kept only to be compared with."""
