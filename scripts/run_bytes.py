"""What a run takes of a server's store, from a model's shape alone: for sizing replicas before there are any.

    python scripts/run_bytes.py                                        the table of docs/OPERATIONS.md
    python scripts/run_bytes.py --layers 32 --d-model 4096 --heads 32 --kv-heads 8 --d-head 128 --neurons 14336

A server that serves the model says the same without arithmetic: `llm.describe().run_bytes(batch, n_pos)`.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass

TOKEN_AND_MASK_BYTES = 8 + 1
SCALE_BYTES = 4  # norms compute in float32 whatever the model's type
LENGTHS = (128, 1024)
BYTES_OF = {"float32": 4, "bfloat16": 2}


@dataclass(frozen=True)
class Shape:
    """Of a model, as its configuration has it."""

    layers: int
    d_model: int
    heads: int
    kv_heads: int
    """Of keys and values; as many as `heads` where they are not shared."""

    d_head: int
    neurons: int
    """Of one layer; in a mixture of experts `d_model`: the layer's input is kept, activations are computed again."""

    branch_norms: int = 0
    """Norms of one layer that stand behind attention or the feed-forward part, as in Gemma 2 and OLMo 2."""

    def bytes_per_position(self, value_bytes: int) -> int:
        """For each layer: the stream that enters, attention's and the feed-forward output, values and activations."""
        of_layer = 3 * self.d_model + self.kv_heads * self.d_head + self.neurons
        scales = self.layers * self.branch_norms * SCALE_BYTES
        return value_bytes * (self.layers * of_layer + self.d_model) + scales + TOKEN_AND_MASK_BYTES

    def bytes_per_position_pair(self, value_bytes: int) -> int:
        """The attention patterns."""
        return value_bytes * self.layers * self.heads

    def run_bytes(self, batch: int, n_pos: int, value_bytes: int) -> int:
        """Of `batch` sentences, padded to `n_pos` positions."""
        pairs = n_pos * self.bytes_per_position_pair(value_bytes)
        return batch * n_pos * (self.bytes_per_position(value_bytes) + pairs)


PUBLISHED = {
    "GPT-2 small": Shape(layers=12, d_model=768, heads=12, kv_heads=12, d_head=64, neurons=3072),
    "GPT-2 XL": Shape(layers=48, d_model=1600, heads=25, kv_heads=25, d_head=64, neurons=6400),
    "Llama 3 8B": Shape(layers=32, d_model=4096, heads=32, kv_heads=8, d_head=128, neurons=14336),
    "Mixtral 8x7B": Shape(layers=32, d_model=4096, heads=32, kv_heads=8, d_head=128, neurons=4096),
}


def rows(shapes: dict[str, Shape]) -> Iterator[str]:
    """A table in Markdown, in MB (10^6 bytes) of one sentence."""
    columns = [(dtype, length) for dtype in BYTES_OF for length in LENGTHS]
    yield "| one sentence, MB | " + " | ".join(f"{dtype}, {length}" for dtype, length in columns) + " |"
    yield "|---|" + "---|" * len(columns)
    for name, shape in shapes.items():
        sizes = (shape.run_bytes(1, length, BYTES_OF[dtype]) / 1e6 for dtype, length in columns)
        yield f"| {name} | " + " | ".join(f"{size:,.1f}" for size in sizes) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description="What a run takes of a server's store.")
    for name in Shape.__dataclass_fields__:
        parser.add_argument(f"--{name.replace('_', '-')}", type=int)
    given = {name: value for name, value in vars(parser.parse_args()).items() if value is not None}
    print("\n".join(rows({"yours": Shape(**given)} if given else PUBLISHED)))


if __name__ == "__main__":
    main()
