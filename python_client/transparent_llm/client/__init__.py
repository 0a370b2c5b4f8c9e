"""What only a client has: the remote object, its runs and reads, what it keeps."""
