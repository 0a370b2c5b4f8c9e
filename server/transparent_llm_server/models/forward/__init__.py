"""From text to forward passes through the bridge, and what these leave behind."""
