"""The table of docs/LANGUAGES.md: what each language has of what scenarios need."""

from __future__ import annotations

from collections.abc import Iterator

from conformance.clients import Client, clients
from conformance.driver import ROOT
from conformance.scenario import scenarios

FILE = ROOT / "docs" / "LANGUAGES.md"
BEGIN = "<!-- conformance: `python -m conformance --languages` in tests/ writes this table -->"
END = "<!-- /conformance -->"

NEEDS = {
    "generate": "text that the model goes on with, token by token: `generate`",
    "sweep": "the same changes at one place after another: `sweep`",
    "gradients": "gradients and integrated gradients",
    "edited_gradients": "gradients of a run with edits, and integrated ones at any site",
    "edges": "edges of attribution patching",
    "contribution_edges_to": "edges of the contribution graph into some positions",
    "compare_from": "two runs beside each other, also position by position: `compare`",
    "circuits": "weights of heads, composition and copying scores",
    "features": "features of sparse autoencoders",
    "sae_edits": "edits by such features",
    "plan": "what reads would bring: `plan`",
    "cache": "values of the current run are kept, so that asking twice sends nothing twice",
    "targets": "several servers without a proxy before them",
}
"""In words, by the name in scenarios."""


def table() -> str:
    """In Markdown."""
    return "\n".join(_lines())


def write() -> None:
    """Put it in its place."""
    FILE.write_text(with_table(FILE.read_text(encoding="utf-8")), encoding="utf-8")


def with_table(text: str) -> str:
    """The text of the page with the table as it is now."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    assert begin, f"{FILE} has no place for the table"
    assert end, f"{FILE} has no end of the table"
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


def _lines() -> Iterator[str]:
    known = clients()
    yield f"| | {' | '.join(client.language for client in known.values())} |"
    yield "|---|" + "---|" * len(known)
    for needed, words in NEEDS.items():
        yield f"| {words} | {' | '.join(_cell(client, needed) for client in known.values())} |"


def _cell(client: Client, needed: str) -> str:
    """Whether a client has it, or why it cannot."""
    if needed in client.lacks:
        return "not yet"
    reasons = (each.not_for.get(client.name) for each in scenarios() if each.needs == needed)
    return next((f"no: {reason}" for reason in reasons if reason), "yes")
