"""Where a server is, and what stands on the way to it."""
