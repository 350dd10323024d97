"""A model and a method for sgi2v from a package of its own: the smallest whole example of both contracts."""
