"""The command `transparent-llm admin`: runs and owners of a server, and its graceful end."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from transparent_llm.client.administrator import Administrator
from transparent_llm.client.config import Access
from transparent_llm.description import OwnerUsage
from transparent_llm.quoting import shown

AccessOf = Callable[[argparse.Namespace], Access]
_LONGEST_LINE = 400


def add_admin_commands(
    parser: argparse.ArgumentParser, add_connection: Callable[..., None], access_of: AccessOf
) -> None:
    """`runs`, `owners` and `drain`, each with the flags that `add_connection` gives it."""
    commands = parser.add_subparsers(required=True, metavar="WHAT")

    def connected(arguments: argparse.Namespace) -> Administrator:
        return Administrator(arguments.target, timeout_s=arguments.timeout_s, **access_of(arguments))

    def add(name: str, text: str, print_it: Callable[[Administrator, argparse.Namespace], None]) -> None:
        def command(arguments: argparse.Namespace) -> int:
            with connected(arguments) as administrator:
                print_it(administrator, arguments)
            return 0

        each = commands.add_parser(name, help=text)
        add_connection(each, command=command, token_from="TRANSPARENT_LLM_ADMIN_TOKEN")
        if name == "runs":
            each.add_argument("--owner", default="", help="those of this owner only")
            each.add_argument("--limit", type=int, default=0, help="at most so many (default and most: 1000)")

    add("runs", "list the runs that the server keeps, those that were read last first", _print_runs)
    add("owners", "list owners: runs that wait and are kept, what they took within a minute and an hour", _print_owners)
    add("drain", "have the server end gracefully, as SIGTERM does", _drain)


def _print_runs(administrator: Administrator, arguments: argparse.Namespace) -> None:
    found = administrator.runs(arguments.owner, arguments.limit)
    _print_row("run", "owner", "model", "bytes", "age", "unread for")
    for run in found.runs:
        _print_row(run.run_id, run.owner or "-", run.model, run.nbytes, _seconds(run.age_s), _seconds(run.idle_s))
    print(f"{found.total} runs, {found.total_bytes} bytes")


def _print_owners(administrator: Administrator, arguments: argparse.Namespace) -> None:  # noqa: ARG001
    kinds = [f"{quantity}_per_{period}" for quantity in ("positions", "bytes") for period in ("minute", "hour")]
    _print_row("owner", "waiting", "runs", "run bytes", *(kind.replace("_per_", "/") for kind in kinds))
    for owner in administrator.owners():
        used = [_used(owner, kind) for kind in kinds]
        _print_row(owner.owner or "-", owner.waiting_runs, owner.stored_runs, owner.stored_run_bytes, *used)


def _used(owner: OwnerUsage, kind: str) -> str:
    used, allowed = owner.usage.get(kind, (0, None))
    return f"{used}" if allowed is None else f"{used} of {allowed}"


def _drain(administrator: Administrator, arguments: argparse.Namespace) -> None:  # noqa: ARG001
    administrator.drain()
    print("the server drains: it takes no new calls, and ends when those under way have")


def _seconds(seconds: float) -> str:
    return f"{seconds:.0f} s"


def _print_row(*cells: object) -> None:
    """Separated by tabs, for people and for `cut`."""
    print(shown("\t".join(str(cell) for cell in cells), longest=_LONGEST_LINE, keeps="\t"))
