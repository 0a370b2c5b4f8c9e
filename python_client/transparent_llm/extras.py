"""What is installed beside the client, and how: said by all that find it missing."""

from __future__ import annotations


def missing(user: str, extra: str, error: ModuleNotFoundError) -> str:
    """A sentence for somebody who has the client alone.

    Args:
        user: What needs the extra.
        error: Of the first module that was not found.
    """
    module = str(error.name).partition(".")[0]
    return (
        f"{user} requires the [{extra}] extra, and {module} is not installed: run pip install 'PATH[{extra}]', where "
        "PATH is the checkout or the wheel that the client was installed from"
    )
