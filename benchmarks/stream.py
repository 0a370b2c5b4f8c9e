"""256 MiB from a server process to a tensor here, beside Arrow Flight and a bare socket, which fill dense arrays.

Ours is what a client of the same host gets, through shared memory; `socket` is what one on another host would get.

Every read ends in one contiguous array in fresh memory. Flight gets the best of a few record batch sizes. From a GPU
(`--device cuda`) a server on the CPU streams beside it.

    .venv/bin/python benchmarks/stream.py [--quick]
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import pyarrow.flight
from peers import device, flight, shapes, tcp
from peers.batches import FreshBatches
from peers.outcome import Figures, Goal, is_quick, progress, ratio_figures, report
from peers.processes import peer_process
from peers.serving import server_process
from peers.timing import Action, Timings, in_turn, median_ms, median_seconds, ratio

from transparent_llm import RemoteTransparentLlm, connect

GOAL = Goal("higher", 1.0)
MIB = 2**20
N_BYTES = 256 * MIB
D_MODEL, N_TOKENS = 1024, 128
BATCH_MIB = (1, 2, 4, 8, 16, 64, 256)
QUICK_BATCH_MIB = (2, 4, 8)
TRIES = 3


@contextmanager
def our_side(*flags: str) -> Iterator[tuple[RemoteTransparentLlm, RemoteTransparentLlm]]:
    """Clients with and without shared memory, whose runs have a residual stream of `N_BYTES`."""
    n_rows = N_BYTES // (4 * D_MODEL * N_TOKENS)
    with (
        shapes.saved(shapes.one_wide_layer(D_MODEL, N_TOKENS)) as folder,
        server_process("--model", f"wide={folder}", *flags) as address,
        connect(address, cache_bytes=0) as llm,
        connect(address, cache_bytes=0, shared_memory=False) as by_socket,
    ):
        progress(f"running {n_rows} x {N_TOKENS} tokens ...")
        token_ids = FreshBatches(n_rows, N_TOKENS, llm.model_info().d_vocab).next()
        for client in (llm, by_socket):
            client.run_tokens(token_ids)
            assert client.residual_in(0).nbytes == N_BYTES
        yield llm, by_socket


def best_batch(sizes: Sequence[int], read: Callable[[int], object]) -> int:
    """MiB of a record batch with which Flight is fastest here."""
    taken = {size: median_seconds(lambda size=size: read(size), TRIES) for size in sizes}  # type: ignore[misc]
    for size, time in taken.items():
        progress(f"Flight, record batches of {size} MiB: {N_BYTES / time / 1e9:.2f} GB/s")
    return min(taken, key=lambda size: taken[size])


def measure(rounds: int, batch_sizes: Sequence[int]) -> tuple[int, Timings]:
    """The size of Flight's record batches, and the times of all."""
    with ExitStack() as stack:
        llm, by_socket = stack.enter_context(our_side())
        client = stack.enter_context(
            pyarrow.flight.connect(f"grpc://{stack.enter_context(peer_process('flight', N_BYTES))}")
        )
        connection = stack.enter_context(tcp.connect(stack.enter_context(peer_process("tcp", N_BYTES))))

        def read_flight(batch_mib: int) -> flight.Dense:
            return flight.read(client, N_BYTES // 4, batch_mib * MIB // 4)

        batch_mib = best_batch(batch_sizes, read_flight)
        actions: dict[str, Action] = {
            "ours": lambda: llm.residual_in(0),
            "socket": lambda: by_socket.residual_in(0),
            "flight": lambda: read_flight(batch_mib),
            "tcp": lambda: tcp.read(connection, N_BYTES),
        }
        if device.is_gpu():
            from_cpu, from_cpu_by_socket = stack.enter_context(our_side("--device", "cpu"))
            actions["ours_from_cpu"] = lambda: from_cpu.residual_in(0)
            actions["socket_from_cpu"] = lambda: from_cpu_by_socket.residual_in(0)
        return batch_mib, in_turn(actions, rounds)


def beside_the_cpu(timings: Timings) -> Figures:
    """A GPU's stream beside that of the CPU, if both were timed."""
    found: Figures = {}
    for name in ("ours", "socket"):
        if f"{name}_from_cpu" in timings:
            found |= ratio_figures(ratio(timings, f"{name}_from_cpu", name), f"{name}_from_cpu_over_{name}")
    return found


def main() -> None:
    quick = is_quick(__doc__)
    rounds = 7 if quick else 25
    batch_mib, timings = measure(rounds, QUICK_BATCH_MIB if quick else BATCH_MIB)
    report(
        "stream",
        GOAL.figures(ratio(timings, "flight", "ours")),
        quick=f"{rounds} rounds, record batches of {QUICK_BATCH_MIB} MiB tried" if quick else None,
        bytes=N_BYTES,
        pairs=rounds,
        gb_per_s={name: round(N_BYTES / 1e6 / median_ms(timings, name), 3) for name in timings},
        **ratio_figures(ratio(timings, "flight", "socket"), "flight_over_socket"),
        **ratio_figures(ratio(timings, "tcp", "ours"), "tcp_over_ours"),
        **beside_the_cpu(timings),
        flight_batch_mib=batch_mib,
    )


if __name__ == "__main__":
    main()
