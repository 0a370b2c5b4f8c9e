"""Text of others, made fit for a terminal: a server's strings can neither move the cursor nor turn the line around."""

from __future__ import annotations


def shown(text: str, *, keeps: str = "", longest: int | None = None) -> str:
    r"""Text with its control, format and other invisible characters written out, as \x1b for the escape character.

    Args:
        keeps: Characters that stay as they are all the same.
        longest: Of longer text so many characters are shown. None: all.
    """
    cut = text if longest is None or len(text) <= longest else f"{text[:longest]}... ({len(text)} characters)"
    if cut.isprintable():
        return cut
    return "".join(sign if sign.isprintable() or sign in keeps else repr(sign)[1:-1] for sign in cut)
