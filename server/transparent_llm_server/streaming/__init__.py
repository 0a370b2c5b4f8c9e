"""From values to the bytes of messages."""
