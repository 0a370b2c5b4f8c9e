"""The clients of all languages beside each other: 64 MiB to an array of theirs, and an attention matrix of 64 KiB.

Each is timed within its own process, by its driver of tests/conformance. All read by the socket, the page in Chromium
by gRPC-Web through Envoy. Nothing is kept between reads.

    .venv/bin/python benchmarks/languages.py [--quick]
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from peers import shapes
from peers.batches import FreshBatches
from peers.outcome import Figures, is_quick, progress, ratio_figures, report
from peers.serving import server_process
from peers.timing import Timings, measured_in_turn, median_ms, ratio

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from conformance.clients import clients
from conformance.driver import Driver, driving
from support.deploy.envoy import envoy_before

N_BYTES = 64 * 2**20
D_MODEL, N_TOKENS = 1024, 128
SMALL_TIMES = 200
NOTHING_KEPT: dict[str, Any] = {"python": {"cache_bytes": 0, "read_ahead_bytes": 0}}
"""Options of the clients that would keep values; the others keep none."""


@contextmanager
def drivers(direct: str, by_envoy: str) -> Iterator[dict[str, Driver]]:
    """Of all clients, connected and with a run."""
    n_rows = N_BYTES // (4 * D_MODEL * N_TOKENS)
    token_ids = FreshBatches(n_rows, N_TOKENS, shapes.one_wide_layer(D_MODEL, N_TOKENS).vocab_size).next()
    with ExitStack() as stack:
        made = {}
        for name, client in clients().items():
            progress(f"building {name} ...")
            if not client.make():
                raise SystemExit(f"{name} could not be built; make clients says more")
            made[name] = stack.enter_context(driving(client.command))
            target = by_envoy if client.through == "envoy" else direct
            ok(made[name], "connect", target=target, options=NOTHING_KEPT.get(name, {}))
            ok(made[name], "call", method="run_tokens", args=[token_ids])
        yield made


def ok(driver: Driver, op: str, **fields: Any) -> Any:
    """What it answers, if all went well."""
    answer = driver.ask(op, **fields)
    if "error" in answer:
        raise SystemExit(f"{op}: {answer['error']}")
    return answer["ok"]


def timed(by_name: dict[str, Driver], rounds: int, times: int, method: str, *args: int) -> Timings:
    """The median of some calls of each client in each round, as it took them itself."""
    progress(f"{method}, {rounds} rounds ...")

    def median(driver: Driver) -> float:
        return statistics.median(ok(driver, "time", method=method, args=list(args), times=times)["seconds"])

    return measured_in_turn({name: partial(median, driver) for name, driver in by_name.items()}, rounds)


def row(name: str, large: Timings, small: Timings) -> Figures:
    """One client, and the Python client's time over its own."""
    return {
        "client": name,
        "mb_per_s": round(N_BYTES / 1e3 / median_ms(large, name)),
        **ratio_figures(ratio(large, "python", name)),
        "small_ms": median_ms(small, name),
        **ratio_figures(ratio(small, "python", name), "small_ratio"),
    }


def main() -> None:
    quick = is_quick(__doc__)
    rounds = 3 if quick else 15
    with ExitStack() as stack:
        folder = stack.enter_context(shapes.saved(shapes.one_wide_layer(D_MODEL, N_TOKENS)))
        address = stack.enter_context(server_process("--model", f"wide={folder}"))
        work = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        proxy = stack.enter_context(envoy_before(address, work))
        by_name = stack.enter_context(drivers(address, proxy.address))
        large = timed(by_name, rounds, 1, "residual_in", 0)
        small = timed(by_name, rounds, SMALL_TIMES, "attention_matrix", 0, 0, 0)
    rows = [row(name, large, small) for name in by_name]
    slowest = min(
        (found for found in rows if found["client"] != "typescript-browser"), key=lambda found: found["ratio"]
    )
    report(
        "languages",
        {"ratio": slowest["ratio"], "better": "higher", "client": slowest["client"]},
        quick=f"{rounds} rounds" if quick else None,
        rows=rows,
        bytes=N_BYTES,
        rounds=rounds,
    )


if __name__ == "__main__":
    main()
