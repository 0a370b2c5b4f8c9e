"""Forward passes, and what they leave behind."""
