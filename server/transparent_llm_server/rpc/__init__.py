"""Requests in, messages out: what stands between gRPC and the models."""
