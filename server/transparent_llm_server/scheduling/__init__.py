"""Work on its way to the model: who is next, what is kept of it."""
