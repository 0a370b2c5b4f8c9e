"""From the command line: the logit lens, likely tokens, the contribution graph of a text, and how a text goes on."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transparent_llm.analysis.scores import NORMALIZE
from transparent_llm.quoting import shown

if TYPE_CHECKING:
    from transparent_llm.client.remote import RemoteTransparentLlm

    Connect = Callable[[argparse.Namespace], RemoteTransparentLlm]


def add_looking_commands(commands: Any, add_connection: Callable[..., None], connect: Connect) -> None:
    """`lens`, `top`, `graph` and `generate`."""
    lens = commands.add_parser("lens", help="what the residual stream says of the next token, layer by layer")
    lens.add_argument("text", metavar="TEXT")
    lens.add_argument("--pos", type=int, help="one position; -1 is the last (default: all, the last 8 are printed)")
    lens.add_argument("--mid", action="store_true", help="also after the attention of each layer")
    _add_normalize(lens)
    lens.add_argument("-o", "--output", type=Path, help="also write a page with all positions, .html")
    add_connection(lens, command=partial(_lens, connect))

    top = commands.add_parser("top", help="the most likely next tokens, of the output or of a layer")
    top.add_argument("text", metavar="TEXT")
    top.add_argument("--layer", type=int, default=-1, help="layer, from 0 (default -1, the last: the output)")
    top.add_argument("--pos", type=int, default=-1, help="position in the text, from 0 (default -1, the last)")
    top.add_argument("--top", type=int, default=10, help="how many of the most likely (default 10)")
    top.add_argument("--bottom", type=int, default=0, help="how many of the least likely (default 0)")
    _add_normalize(top)
    add_connection(top, command=partial(_top, connect))

    graph = commands.add_parser("graph", help="draw what flowed to a prediction, the contribution graph")
    graph.add_argument("text", metavar="TEXT")
    graph.add_argument("--pos", type=int, default=-1, help="position whose prediction is drawn (default -1, the last)")
    graph.add_argument("--threshold", type=float, default=0.04, help="contributions above it count (default 0.04)")
    graph.add_argument("-o", "--output", type=Path, required=True, help="page to write, .html")
    add_connection(graph, command=partial(_graph, connect))

    generate = commands.add_parser("generate", help="go on with a text, token by token")
    generate.add_argument("text", metavar="TEXT")
    generate.add_argument("--max-new-tokens", type=int, default=20, help="how many tokens at most (default 20)")
    generate.add_argument("--temperature", type=float, default=0.0, help="0 (default): the likeliest token each time")
    generate.add_argument("--top-k", type=int, help="draw from so many of the likeliest tokens (default: all)")
    generate.add_argument("--top-p", type=float, help="draw from those that have this probability together")
    generate.add_argument("--seed", type=int, default=0, help="of what is drawn (default 0)")
    generate.add_argument("--stop", action="append", default=[], metavar="TEXT", help="ends it; repeated for several")
    add_connection(generate, command=partial(_generate, connect))


def _add_normalize(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--normalize",
        choices=NORMALIZE,
        default="own",
        help="by the final norm (own), with the scale it had in this run (frozen), or not (none); default own",
    )


def _lens(connect: Connect, arguments: argparse.Namespace) -> int:
    with connect(arguments) as llm:
        llm.run([arguments.text])
        at = None if arguments.pos is None else [arguments.pos]
        found = llm.logit_lens(positions=at, mid=arguments.mid, normalize=arguments.normalize)
    print(found)
    if arguments.output is not None:
        print(f"{found.save_html(arguments.output)}: {len(found.places)} places, {len(found.positions)} positions")
    return 0


def _top(connect: Connect, arguments: argparse.Namespace) -> int:
    with connect(arguments) as llm:
        llm.run([arguments.text])
        how = {"k": arguments.top, "bottom_k": arguments.bottom, "normalize": arguments.normalize}
        print(llm.top_tokens(arguments.layer, arguments.pos, **how))
    return 0


def _generate(connect: Connect, arguments: argparse.Namespace) -> int:
    with connect(arguments) as llm:
        steps = llm.generate(
            arguments.text,
            arguments.max_new_tokens,
            temperature=arguments.temperature,
            top_k=arguments.top_k,
            top_p=arguments.top_p,
            seed=arguments.seed,
            stop=arguments.stop,
        )
        for step in steps:
            print(shown(step.text, keeps="\n\t"), end="", flush=True)
    print()
    return 0


def _graph(connect: Connect, arguments: argparse.Namespace) -> int:
    with connect(arguments) as llm:
        llm.run([arguments.text])
        graph = llm.contribution_graph(threshold=arguments.threshold).paths(arguments.pos)
    stays = graph.save_html(arguments.output)
    print(f"{stays}: {len(graph.edges())} edges, {graph.n_layers} layers, {len(graph.tokens)} tokens")
    return 0
