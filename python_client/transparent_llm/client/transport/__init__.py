"""Calls on their way: where to, how, and what happens when one breaks off."""
