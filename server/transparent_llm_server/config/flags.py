"""The flags of `transparent-llm serve`, under the names of the server's settings."""

from __future__ import annotations

import argparse
from pathlib import Path

from transparent_llm.network.target import DEFAULT_TARGET


def add_serve_flags(parser: argparse.ArgumentParser) -> None:
    """All of them; those that are not given stay None, so that a configuration file or the default counts."""
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="read settings from this TOML file; those given here come first",
    )
    parser.add_argument(
        "--model",
        dest="models",
        action="append",
        metavar="[ALIAS=]NAME_OR_DIR",
        help="hub name or local folder; repeat for several (default: the embedded demo model)",
    )
    parser.add_argument("--device", help="cpu, cuda, cuda:INDEX, gpu or auto (default auto)")
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "float16"], help="(default float32)")
    _add_placement(parser)
    parser.add_argument("--listen", help=f"HOST:PORT or unix:PATH (default {DEFAULT_TARGET})")
    parser.add_argument(
        "--probe-listen",
        metavar="HOST:PORT",
        help="answer the standard health service there too, without TLS or tokens, for the probes of a cluster",
    )
    parser.add_argument("--run-store-bytes", type=int, help="bytes of all stored runs together (default 4 GiB)")
    parser.add_argument("--run-ttl-s", type=float, help="a run that nobody read for so long is dropped (default 3600)")
    parser.add_argument(
        "--shared-positions",
        type=int,
        help="runs of several clients that arrive together share a forward pass of at most so many positions, padding "
        "included; values then differ by rounding from those of a run alone (default 8192 on a GPU, 0 on a CPU: never)",
    )
    parser.add_argument(
        "--no-shared-memory",
        dest="shared_memory",
        action="store_false",
        default=None,
        help="send large tensors by the socket to clients of this host and user too",
    )
    parser.add_argument("--share-window-s", type=float, help="how long the model waits for such runs (default 0.002)")
    _add_times(parser)
    _add_limits(parser)
    _add_access(parser)
    _add_observability(parser)


def _add_times(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--drain-announce-s",
        type=float,
        help="how long after SIGTERM health says no while new calls are still answered (default 0)",
    )
    parser.add_argument("--drain-s", type=float, help="how long calls may go on after that (default 30)")
    parser.add_argument(
        "--stall-s", type=float, help="a stream that nobody reads for so long is cancelled (default 60; 0: never)"
    )
    parser.add_argument(
        "--request-arrival-s",
        type=float,
        help="a call whose request has not come, whole, after so long is cancelled (default 20; 0: never)",
    )
    parser.add_argument(
        "--canary-s",
        type=float,
        help="how often the server calls itself to find out whether it serves (default 5; 0: never)",
    )
    parser.add_argument(
        "--hang-s",
        type=float,
        help="a pass, or another piece of work of the model's, that takes longer ends the process (default 0: never)",
    )


def _add_placement(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--device-map",
        metavar="MAP",
        help="spread models over devices: auto, balanced, balanced_low_0, sequential, or a JSON file {module: device}",
    )
    parser.add_argument(
        "--max-memory", metavar="SIZES", help="with --device-map: what each device may hold, as 0=20GiB,cpu=60GiB"
    )
    parser.add_argument(
        "--offload-dir", type=Path, metavar="FOLDER", help="with --device-map: for weights that are put on disk"
    )
    parser.add_argument(
        "--quantization", metavar="WAY", help="quantize weights at load: quanto-int8 or torchao-int8, if installed"
    )


def _add_limits(parser: argparse.ArgumentParser) -> None:
    for flag, what in (
        ("--max-tokens-per-run", "tokens of one run, padding included (default 65536)"),
        ("--max-sentences-per-run", "sentences of one run (default 1024)"),
        ("--max-text-bytes", "bytes of the text of one run (default 1 MiB)"),
        ("--max-read-bytes", "bytes of one answer (default 16 GiB)"),
        ("--run-bytes-per-owner", "bytes of stored runs of one owner (default all of --run-store-bytes)"),
        ("--model-bytes", "bytes of the weights of all loaded models (default no limit)"),
        ("--queue-length", "runs that wait for the model (default 32)"),
        ("--max-streams", "calls under way at once (default 160)"),
        ("--max-streams-per-owner", "of these, for one owner, where callers say who they are (default 64)"),
    ):
        parser.add_argument(flag, type=int, metavar="N", help=what)


def _add_access(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--tokens",
        dest="tokens_file",
        type=Path,
        metavar="FILE",
        help="calls must bring a token of this file of lines OWNER SHA256HEX (see `transparent-llm token`)",
    )
    parser.add_argument(
        "--revoked",
        dest="revoked_file",
        type=Path,
        metavar="FILE",
        help="let in nobody of this file of lines sha256:FINGERPRINT, serial:NUMBER, or owners as the log has them",
    )
    parser.add_argument("--tls-cert", type=Path, metavar="FILE", help="speak TLS with this certificate and its chain")
    parser.add_argument("--tls-key", type=Path, metavar="FILE", help="its private key, PEM without password")
    parser.add_argument(
        "--tls-client-ca", type=Path, metavar="FILE", help="clients must show a certificate of these authorities"
    )
    parser.add_argument(
        "--insecure",
        action="store_true",
        default=None,
        help="listen beyond this host also without authentication, or with tokens but without TLS",
    )
    parser.add_argument(
        "--log-prompts", action="store_true", default=None, help="write sentences into the log, otherwise never there"
    )


def _add_observability(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--metrics-listen", metavar="HOST:PORT", help="let Prometheus read metrics there, by HTTP (default: no metrics)"
    )
    parser.add_argument(
        "--otlp-endpoint",
        metavar="URL",
        help="send traces by OTLP/gRPC to http://HOST:PORT, or https:// for TLS (default: no traces)",
    )
    parser.add_argument(
        "--access-log",
        choices=["text", "json"],
        help="the form of the whole log, which has a line for each call; json: one object a line (default text)",
    )
    parser.add_argument(
        "--audit-log",
        type=Path,
        metavar="FILE",
        help="append a line of JSON for each call, each refusal and each file of tokens or certificates read again",
    )
