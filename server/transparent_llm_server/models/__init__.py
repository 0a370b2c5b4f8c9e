"""Models in this process: loading, proving, running, and deriving every value of the contract."""
