"""Pictures of values as HTML and SVG: complete by themselves, without scripts or network, and of bounded size."""
