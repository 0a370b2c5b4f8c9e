"""Sweeps of a run: cells as rows of shared passes that begin where they are changed, and what is measured of each."""
