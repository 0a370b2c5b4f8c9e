"""Whether a server serves, found out and told."""
