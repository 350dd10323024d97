"""Values that suit methods made for other networks on a video transformer, from their papers; none was measured."""

from sgi2v.backbones.base import Advice


def without_attention(at: float, layer: str, cell: int, *, keeps_first: bool = False) -> Advice:
    """Values under which methods that edit attention have what a video transformer can do of them.

    FreeTraj's noise; DragDiffusion's optimisation of one step's latents: ``at`` that noise level, the published 35 of
    50 steps still to go, on the output of that block, in steps of a latent cell (``cell`` pixels), since what lies
    between places of a coarser map is their mean; a handle has arrived within one of them. A kept first frame is told
    another time, so each frame tracks its own look. None of it was measured on these weights.
    """
    drag = {"at": at, "unit": "noise-level", "layers": (layer,), "cell": float(cell), "arrived": 1.0}
    own = {"tracked": "own-frame"} if keeps_first else {}
    return {
        "freetraj": {"edit_spatial": False, "edit_temporal": False},
        "drag-diffusion": {**drag, "reference_attention": False, **own},
    }
