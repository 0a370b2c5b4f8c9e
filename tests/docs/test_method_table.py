"""The README's table of methods is the table of the code."""

from __future__ import annotations

import re
from pathlib import Path

from transparent_llm.wire.methods import METHODS

ROOT = Path(__file__).parents[2]


def test_every_method_is_in_the_readme_with_its_arguments_and_axes() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)\((.*?)\)` \| (.*?) \|", text, flags=re.MULTILINE)
    assert [name for name, _, _ in rows] == [method.name for method in METHODS.values() if method.of_class]
    for name, arguments, result in rows:
        method = METHODS[name]
        if method.arguments:
            assert tuple(arguments.split(", ")) == method.arguments, name
        if method.dims is not None:
            assert result == f"`[{' '.join(method.dims)}]`", name
