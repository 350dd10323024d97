"""An image, boxes and paths in; a video whose contents follow them out."""
