"""Running text, each token on the colour of a number."""

from __future__ import annotations

from collections.abc import Sequence

from transparent_llm.analysis.display.cutting import Kept, left_out
from transparent_llm.analysis.display.markup import figure, isolated, note, require_as_many, table_of, visible
from transparent_llm.analysis.display.scale import Colour, Scale, number

MOST_TOKENS = 4096


def coloured_tokens_html(
    tokens: Sequence[str],
    values: object,
    *,
    title: str,
    value_name: str = "value",
    notes: Sequence[str] | None = None,
    scale: Scale | None = None,
    marked: int | None = None,
) -> str:
    r"""Tokens in their order, as HTML; a line ends where a token has a line break, which is also written out as \n.

    Args:
        tokens: Their strings.
        values: A number for each.
        title: Above them.
        value_name: What the numbers are.
        notes: What else is said where the mouse rests on a token.
        scale: Of the colours. None: by the values.
        marked: A position with a line around it.

    Raises:
        InvalidRequestError: there is not one number or note for each token.
    """
    line = table_of(values, "values", 1)
    require_as_many("values", line, len(tokens))
    if notes is not None:
        require_as_many("notes", notes, len(tokens))
    kept = Kept.of("pos", len(tokens), MOST_TOKENS)
    numbers, fills = line.tolist(), (scale or Scale.of(line)).colours(line).tolist()
    spans = []
    for pos in kept.indices:
        value, colour = numbers[pos], Colour(*fills[pos])
        more = "" if notes is None else f"\n{notes[pos]}"
        said = note(f"{value_name} {number(value)}: pos {pos} '{visible(tokens[pos])}'{more}")
        line_around = "; outline: 2px solid" if pos == marked else ""
        style = f"background: {colour.fill}; color: {colour.ink}{line_around}"
        spans.append(f'<span style="{style}" data-value="{value!r}" title="{said}">{isolated(tokens[pos])}</span>')
        spans.extend(["<br>"] if "\n" in tokens[pos] else [])
    body = f'<div style="white-space: pre-wrap; line-height: 1.8">{"".join(spans)}</div>'
    return figure(title, body, left_out([kept.words]))
