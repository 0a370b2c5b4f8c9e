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
        help="read settings from this TOML file; flags take precedence",
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
        help="serve the standard health service there too, without TLS or tokens, for cluster probes",
    )
    parser.add_argument("--run-store-bytes", type=int, help="bytes of all stored runs together (default 4 GiB)")
    parser.add_argument("--run-ttl-s", type=float, help="drop a run that nobody has read for this long (default 3600)")
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
        help="send large tensors over the socket even to clients of this host and user",
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
        help="how long after SIGTERM health reports NOT_SERVING while new calls are still answered (default 0)",
    )
    parser.add_argument("--drain-s", type=float, help="how long calls may go on after that (default 30)")
    parser.add_argument(
        "--stall-s", type=float, help="cancel a stream that nobody reads for this long (default 60; 0: never)"
    )
    parser.add_argument(
        "--request-arrival-s",
        type=float,
        help="cancel a call whose request has not fully arrived after this long (default 20; 0: never)",
    )
    parser.add_argument(
        "--canary-s",
        type=float,
        help="how often the server calls itself to check that it serves (default 5; 0: never)",
    )
    parser.add_argument(
        "--hang-s",
        type=float,
        help="end the process if a pass, or other work of the model, takes longer (default 0: never)",
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
        "--offload-dir", type=Path, metavar="FOLDER", help="with --device-map: folder for weights that are put on disk"
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
        help="require a token from this file of lines OWNER SHA256HEX (see `transparent-llm token`)",
    )
    parser.add_argument(
        "--revoked",
        dest="revoked_file",
        type=Path,
        metavar="FILE",
        help="refuse everyone in this file of lines sha256:FINGERPRINT, serial:NUMBER, or owners as logged",
    )
    parser.add_argument("--tls-cert", type=Path, metavar="FILE", help="speak TLS with this certificate and its chain")
    parser.add_argument("--tls-key", type=Path, metavar="FILE", help="its private key, PEM without password")
    parser.add_argument(
        "--tls-client-ca", type=Path, metavar="FILE", help="clients must present a certificate from these authorities"
    )
    parser.add_argument(
        "--insecure",
        action="store_true",
        default=None,
        help="listen beyond this host even without authentication, or with tokens but without TLS",
    )
    parser.add_argument(
        "--log-prompts",
        action="store_true",
        default=None,
        help="write sentences to the log, where they otherwise never appear",
    )


def _add_observability(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--metrics-listen",
        metavar="HOST:PORT",
        help="serve metrics for Prometheus there, over HTTP (default: no metrics)",
    )
    parser.add_argument(
        "--otlp-endpoint",
        metavar="URL",
        help="send traces by OTLP/gRPC to http://HOST:PORT, or https:// for TLS (default: no traces)",
    )
    parser.add_argument(
        "--access-log",
        choices=["text", "json"],
        help="the format of the whole log, which has a line for each call; json: one object per line (default text)",
    )
    parser.add_argument(
        "--audit-log",
        type=Path,
        metavar="FILE",
        help="append a line of JSON for each call, each refusal and each file of tokens or certificates read again",
    )
