"""Questions about a run, answered where its values are: pure functions of a `TransparentLlm`, a layer or row of the
current run, and plain parameters, which give small tensors. They hold for any implementation of the class."""
