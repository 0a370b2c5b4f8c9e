"""What every benchmark prints last: one JSON object with a ratio and the target that it should meet."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from peers import conditions, device
from peers.spread import Median
from transparent_llm.errors import InvalidRequestError

Figures = dict[str, Any]


@dataclass(frozen=True)
class Goal:
    """What a ratio should be."""

    better: Literal["higher", "lower"]
    target: float

    def met(self, ratio: float) -> bool:
        """Whether a ratio is at least as good as the target."""
        return ratio >= self.target if self.better == "higher" else ratio <= self.target

    def figures(self, ratio: float, *, and_also: bool = True) -> Figures:
        """A ratio beside its target; it is met only if another condition of the benchmark is met too."""
        met = self.met(ratio) and and_also
        return {**ratio_figures(ratio), "better": self.better, "target": self.target, "met": met}


def ratio_figures(ratio: float, name: str = "ratio") -> Figures:
    """A ratio, and the quartiles where it is a median."""
    if not isinstance(ratio, Median):
        return {name: round(ratio, 4)}
    return {name: round(ratio, 4), f"{name}_quartiles": [round(quartile, 4) for quartile in ratio.quartiles]}


def is_quick(description: str | None) -> bool:
    """Read the command line of a benchmark and set what all sides have alike: whether its short form is asked for."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments = parsed(parser)
    conditions.set_for_all(arguments.threads)
    return bool(arguments.quick)


def parsed(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """What all benchmarks are told, after what this parser has of its own; models are on that device from here on."""
    parser.add_argument("--quick", action="store_true", help="the short form")
    parser.add_argument("--threads", type=int, default=conditions.CORES, help="of each process (default: all cores)")
    parser.add_argument("--device", default="cpu", help="of the models: cpu, cuda, cuda:INDEX, gpu or auto")
    arguments = parser.parse_args()
    try:
        device.choose(arguments.device)
    except InvalidRequestError as error:
        parser.error(error.message)
    return arguments


def progress(text: str) -> None:
    """A line for whoever waits."""
    print(text, flush=True)


def report(
    name: str, headline: Mapping[str, Any], *, quick: str | None = None, rows: Sequence[Figures] = (), **more: object
) -> None:
    """Print the JSON object.

    Args:
        name: Of the benchmark.
        headline: The figures of what the target is about.
        quick: What was left out or made smaller; None for the full form.
        rows: Figures of several shapes.
        more: Figures beside them.
    """
    compared = (sys.modules["__main__"].__doc__ or "").strip().partition("\n")[0]
    tail = {"quick": quick, **conditions.here()}
    found = {"name": name, "compared": compared, **headline, **more, **({"rows": list(rows)} if rows else {}), **tail}
    print(json.dumps(found), flush=True)
