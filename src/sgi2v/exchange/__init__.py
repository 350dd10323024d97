"""Other people's files of wanted motion, read as scenes and written from them; what had no place is said."""

from sgi2v.exchange.forms import FORMS, Exchanged, Form, read_scene, write_scene

__all__ = ["FORMS", "Exchanged", "Form", "read_scene", "write_scene"]
