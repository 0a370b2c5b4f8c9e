"""Arrow Flight: one dense array of float32, in record batches of a size that the reader chooses. Run with its bytes."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.flight as flight

_COLUMN = "value"
Dense = np.ndarray[tuple[int], np.dtype[np.float32]]


class _Arrays(flight.FlightServerBase):  # type: ignore[misc]
    """Streams its array; a ticket is the number of elements in one record batch."""

    def __init__(self, n_elements: int) -> None:
        super().__init__("grpc://127.0.0.1:0")
        self._values = pa.array(np.arange(n_elements, dtype=np.float32))
        self._schema = pa.schema([(_COLUMN, pa.float32())])

    def do_get(self, _context: flight.ServerCallContext, ticket: flight.Ticket) -> flight.GeneratorStream:
        return flight.GeneratorStream(self._schema, self._batches(int(ticket.ticket)))

    def _batches(self, n_elements: int) -> Iterator[pa.RecordBatch]:
        for start in range(0, len(self._values), n_elements):
            yield pa.record_batch([self._values.slice(start, n_elements)], schema=self._schema)


def read(client: flight.FlightClient, n_elements: int, batch_elements: int) -> Dense:
    """The array in memory of its own; a stream of a single batch is in such memory already."""
    reader = client.do_get(flight.Ticket(str(batch_elements).encode()))
    if batch_elements >= n_elements:
        whole: Dense = reader.read_chunk().data.column(0).to_numpy(zero_copy_only=True)
        return whole
    dense, position = np.empty(n_elements, np.float32), 0
    for chunk in reader:
        column = chunk.data.column(0)
        dense[position : position + len(column)] = column.to_numpy(zero_copy_only=True)
        position += len(column)
    assert position == n_elements
    return dense


if __name__ == "__main__":
    server = _Arrays(int(sys.argv[1]) // 4)
    print(f"127.0.0.1:{server.port}", flush=True)
    server.serve()
