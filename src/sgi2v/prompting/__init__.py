"""Motion as a person says it: drags, pins and camera moves in short texts, sentences, clicks."""
