"""The port for browsers: the page's files, and its calls as gRPC-Web."""
