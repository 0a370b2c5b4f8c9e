"""Sparse autoencoders and transcoders: read from folders as SAELens saves them, checked, and computed."""
