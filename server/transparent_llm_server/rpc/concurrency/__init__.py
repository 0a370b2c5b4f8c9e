"""How many calls may be in flight, and the threads that they have."""
