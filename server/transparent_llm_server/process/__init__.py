"""The process around a server: signals, standard streams, limits of the system."""
