"""Where a model's weights lie, and in what form."""
