"""Where other libraries meet this one. Each needs an extra of its own, and nothing here is imported by the client."""
