"""Going on with texts: passes that remember what they have computed, and how the next token is chosen."""
