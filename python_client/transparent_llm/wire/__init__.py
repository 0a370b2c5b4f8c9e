"""The only place where torch meets protobuf: one table of methods, tensors as bytes, errors as statuses."""
