"""Models in this process: loading, checking, running, and deriving every value of the contract."""
