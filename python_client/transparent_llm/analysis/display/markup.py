"""What every picture is made of: text that is only shown, checked labels, and a page around it all.

Token strings come from a server: they can be markup, turn the line around, or be megabytes.
"""

from __future__ import annotations

import html
from collections.abc import Sized

import torch
from jaxtyping import Float

from transparent_llm.errors import InvalidRequestError
from transparent_llm.quoting import listed, shown

LONGEST_TITLE = 200
_LONGEST_LABEL = 24
_LONGEST_NOTE = 400
_FONT = "font: 12px/1.4 ui-monospace, monospace"
_FIGURE = f"margin: 0.5em 0; {_FONT}"
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def label(text: str) -> str:
    """For a cell or an axis, escaped: invisible characters are written out, what is long is truncated."""
    return html.escape(visible(text))


def visible(text: str) -> str:
    """The same, not yet escaped."""
    written = shown(str(text)[: 4 * _LONGEST_LABEL])
    return written if len(written) <= _LONGEST_LABEL else f"{written[: _LONGEST_LABEL - 1]}…"


def note(text: str) -> str:
    """What appears where the mouse rests, escaped; lines stay."""
    return html.escape(shown(str(text), keeps="\n", longest=_LONGEST_NOTE))


def isolated(text: str) -> str:
    """A label whose direction of writing changes nothing beside it."""
    return f"<bdi>{label(text)}</bdi>"


def figure(title: str, body: str, words: str = "") -> str:
    """A picture with its title, and what of it is left out."""
    name = html.escape(shown(title, longest=LONGEST_TITLE))
    rest = f"<p>{html.escape(words)}</p>" if words else ""
    return (
        f'<figure style="{_FIGURE}" aria-label="{name}"><figcaption>{name}</figcaption>'
        f'<div style="overflow-x: auto">{body}</div>{rest}</figure>'
    )


def page(title: str, body: str) -> str:
    """A whole document, which may load nothing and run nothing."""
    name = html.escape(shown(title, longest=LONGEST_TITLE))
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="color-scheme" content="light dark">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{name}</title></head>\n"
        f'<body style="{_FONT}">{body}</body></html>\n'
    )


def table_of(values: object, what: str, n_axes: int) -> Float[torch.Tensor, "..."]:
    """Values as float64 with so many axes, on the CPU; from a tensor or nested lists.

    Raises:
        InvalidRequestError: they are no numbers, or have other axes.
    """
    try:
        tensor = torch.as_tensor(values).detach().to("cpu", torch.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InvalidRequestError(f"{what} must be numbers in {n_axes} axes: {error}") from None
    if tensor.ndim != n_axes:
        raise InvalidRequestError(f"{what} must have {n_axes} axes, got shape {listed(tuple(tensor.shape))}")
    return tensor


def require_as_many(what: str, given: Sized, size: int) -> None:
    """Labels, one for each place.

    Raises:
        InvalidRequestError: there are more or fewer.
    """
    if len(given) != size:
        raise InvalidRequestError(f"{what} has {len(given)} entries for {size} places: give one for each")
