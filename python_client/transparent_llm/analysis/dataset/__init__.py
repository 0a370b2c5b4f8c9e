"""A data set through a model: its sentences in chunks, the values of each, and the file that they are gathered in."""
