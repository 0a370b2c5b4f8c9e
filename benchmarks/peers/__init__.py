"""What the benchmark scripts are made of: peers to compare with, timing in turn, the line of JSON."""
