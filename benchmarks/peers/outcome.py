"""What every benchmark prints last: one JSON object with a ratio and the target that it should meet."""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import grpc
import torch

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
        return {"ratio": round(ratio, 4), "better": self.better, "target": self.target, "met": met}


def is_quick(description: str | None) -> bool:
    """Read the command line of a benchmark: whether its short form is asked for."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the short form")
    return bool(parser.parse_args().quick)


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
    machine = f"{platform.system()} {platform.machine()}, torch {torch.__version__}, grpcio {grpc.__version__}"
    threads = torch.get_num_threads()
    tail = {"quick": quick, "machine": f"{machine}, {threads} threads"}
    print(json.dumps({"name": name, **headline, **more, **({"rows": list(rows)} if rows else {}), **tail}), flush=True)
