"""The command `transparent-llm`: serve a model, look at a served one, save its tensors."""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch

from transparent_llm import tensor_file
from transparent_llm.admin import add_admin_commands
from transparent_llm.client.config import DEFAULT_TIMEOUT_S, Access
from transparent_llm.client.connect import connect
from transparent_llm.client.reads import Result
from transparent_llm.client.remote import RemoteTransparentLlm
from transparent_llm.cluster import add_cluster_command
from transparent_llm.description import ModelDescription, ModelState
from transparent_llm.errors import InvalidRequestError, TransparentLlmError
from transparent_llm.extras import missing
from transparent_llm.looking import add_looking_commands
from transparent_llm.network.target import DEFAULT_TARGET
from transparent_llm.quoting import shown
from transparent_llm.runtime.indexing import checked_index
from transparent_llm.version import __version__
from transparent_llm.wire import dtypes
from transparent_llm.wire.methods import METHODS, Method

TENSORS = [name for name, method in METHODS.items() if method.dims is not None and method.of_class]
_LONGEST_LINE = 2000
"""Characters that are shown of one thing that a server says."""

_INDEX_HELP = {
    "layer": "layer, from 0; -1 is the last, and so for all that follow",
    "batch_i": "which sentence, from 0 (default 0)",
    "pos": "position in the sentence, from 0",
    "head": "attention head, from 0",
    "neuron": "neuron, from 0",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; errors become one line on standard error and exit code 1."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # of a terminal that has not all letters
            stream.reconfigure(errors="backslashreplace")
    parser = _parser(sys.argv[1:] if argv is None else argv)
    arguments, rest = parser.parse_known_args(argv)
    if rest and (not hasattr(arguments, "sentences") or any(word.startswith("-") for word in rest)):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:  # sentences that stand behind options, which argparse leaves over
        arguments.sentences = [*arguments.sentences, *rest]
    try:
        code: int = arguments.command(arguments)
    except (TransparentLlmError, OSError) as error:
        print(f"transparent-llm: {shown(str(error))}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return code


def _parser(argv: Sequence[str]) -> argparse.ArgumentParser:
    """Of all commands; that of `serve` knows its flags only where it is named, as they are made of the settings."""
    parser = argparse.ArgumentParser(
        prog="transparent-llm", description="Look inside a language model that runs somewhere else."
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    serve = commands.add_parser("serve", help="load models and serve them over gRPC")
    if "serve" in argv:
        try:
            from transparent_llm_server.config.flags import add_serve_flags
        except ModuleNotFoundError as error:
            parser.exit(1, f"transparent-llm: {missing('serving', 'server', error)}\n")
        add_serve_flags(serve)
    serve.set_defaults(command=_serve)

    add_cluster_command(commands.add_parser("cluster", help="serve by several processes on this machine, behind Envoy"))

    token = commands.add_parser("token", help="print a new token, and the line that makes a server accept it")
    token.add_argument("owner", metavar="OWNER", help="who will use it; runs are visible to their owner only")
    token.add_argument("--days", type=int, metavar="N", help="accept it for this many days only (default: forever)")
    token.set_defaults(command=_token)

    info = commands.add_parser("info", help="print what a server serves")
    _add_connection(info, command=_info)

    run = commands.add_parser("run", help="run sentences, print tokens and the most likely next ones")
    run.add_argument("sentences", nargs="+", metavar="SENTENCE")
    run.add_argument("--top", type=int, default=5, help="how many next tokens to print (default 5)")
    _add_connection(run, command=_run)

    get = commands.add_parser("get", help="save a tensor with the names of its axes, as safetensors")
    get.add_argument("tensor", choices=TENSORS, metavar="TENSOR", help=f"one of: {', '.join(TENSORS)}")
    get.add_argument("sentences", nargs="*", metavar="SENTENCE")
    for name, text in _INDEX_HELP.items():
        flags = ["--batch-i", "--batch"] if name == "batch_i" else [f"--{name}"]
        get.add_argument(*flags, dest=name, type=int, default=0 if name == "batch_i" else None, help=text)
    get.add_argument("--no-normalize", action="store_true", help="with unembed: leave the final norm out")
    get.add_argument("-o", "--output", type=Path, required=True, help="file to write, .safetensors")
    _add_connection(get, command=_get)

    add_looking_commands(commands, _add_connection, _connect)

    health = commands.add_parser("health", help="exit 0 if the server answers calls, 1 if not")
    _add_connection(health, command=_health, timeout_s=5.0)

    admin = commands.add_parser("admin", help="what an administrator sees of a server, and can have it do")
    add_admin_commands(admin, partial(_add_connection, timeout_s=30.0), _access)

    demo = commands.add_parser("demo", help="start a server on the embedded model and look inside it")
    demo.set_defaults(command=_demo)
    return parser


def _add_connection(
    parser: argparse.ArgumentParser,
    command: object,
    timeout_s: float = DEFAULT_TIMEOUT_S,
    token_from: str = "TRANSPARENT_LLM_TOKEN",
) -> None:
    parser.add_argument(
        "--target", help=f"HOST[:PORT] or unix:PATH (default TRANSPARENT_LLM_ADDRESS or {DEFAULT_TARGET})"
    )
    if token_from == "TRANSPARENT_LLM_TOKEN":
        parser.add_argument("--model", help="name of the model, if several are served")
    parser.add_argument("--timeout-s", type=float, default=timeout_s, help=f"for each call (default {timeout_s:g})")
    parser.add_argument("--token", help=f"bearer token (default {token_from})")
    parser.add_argument("--tls-ca", help="file of CA certificates, or 'system' (default TRANSPARENT_LLM_TLS_CA)")
    parser.add_argument("--tls-cert", help="file of the client certificate (default TRANSPARENT_LLM_TLS_CERT)")
    parser.add_argument("--tls-key", help="file of its private key (default TRANSPARENT_LLM_TLS_KEY)")
    parser.add_argument(
        "--proxy",
        help="http://HOST:PORT, 'environment' or 'none' (default TRANSPARENT_LLM_PROXY, else the environment's proxy "
        "for public servers over TLS)",
    )
    parser.set_defaults(command=command)


def _serve(arguments: argparse.Namespace) -> int:
    try:
        from transparent_llm_server.config.server import ServerConfig, settings_of
        from transparent_llm_server.process.daemon import serve
    except ModuleNotFoundError as error:
        raise InvalidRequestError(missing("serving", "server", error)) from error

    flags = {name: value for name, value in vars(arguments).items() if name not in ("command", "config")}
    given = {name: value for name, value in flags.items() if value is not None}
    written = settings_of(arguments.config) if arguments.config is not None else {}
    config = ServerConfig.of({**written, **given})
    return serve(config)


def _token(arguments: argparse.Namespace) -> int:
    try:
        from transparent_llm_server.access.bearer_tokens import new_bearer_token
    except ModuleNotFoundError as error:
        raise InvalidRequestError(missing("making tokens", "server", error)) from error

    token, line = new_bearer_token(arguments.owner, arguments.days)
    for_people = sys.stderr.isatty()
    if for_people:
        print("the token, for its owner, is shown once and stored nowhere:", file=sys.stderr, flush=True)
    print(token, flush=True)
    if for_people:
        print("the line for the server's file of tokens:", file=sys.stderr)
    print(line, file=sys.stderr)
    return 0


def _connect(arguments: argparse.Namespace) -> RemoteTransparentLlm:
    return connect(arguments.target, model=arguments.model, timeout_s=arguments.timeout_s, **_access(arguments))


def _access(arguments: argparse.Namespace) -> Access:
    return Access(
        token=arguments.token,
        tls_ca=arguments.tls_ca,
        tls_cert=arguments.tls_cert,
        tls_key=arguments.tls_key,
        proxy=arguments.proxy,
    )


def _info(arguments: argparse.Namespace) -> int:
    with _connect(arguments) as llm:
        info = llm.server_info()
    _say(f"server {info.server_version}, API {info.api_version}")
    _say("versions: " + ", ".join(f"{name} {version}" for name, version in sorted(info.versions.items())))
    print(f"runs stored: {info.stored_runs} ({info.stored_run_bytes} of {info.limits.run_store_bytes} bytes)")
    for model in info.models:
        _print_model(model)
    return 0


def _print_model(model: ModelDescription) -> None:
    info = model.info
    dtype = dtypes.name(model.dtype) if model.dtype else "unknown dtype"
    names = ", ".join((info.name, *model.aliases))
    if model.state is not ModelState.LOADED:
        print()
        _say(f"model {names}: {model.state.value}, {model.detail}")
    if not model.digest:  # never loaded, so that nothing else is known
        return
    if model.state is ModelState.LOADED:
        print()
        _say(f"model {names}: {model.architecture}, {dtype} on {model.device}{_placement(model)}")
    print(f"  {info.n_params_estimate:,} parameters, {info.n_layers} layers, {info.n_heads} heads,", end=" ")
    d_ffn = "/".join(str(size) for size in sorted(set(model.d_ffn)))
    _say(f"d_model {info.d_model}, d_ffn {d_ffn}, d_vocab {info.d_vocab}, context {model.n_ctx}")
    print(f"  digest {model.digest}")
    for check in model.parity:
        _say(f"  {check.name:<26} max error {check.max_abs_error:.2g} (allowed {check.tolerance:.2g})")
    for method, why in model.unsupported.items():
        _say(f"  without {method}: {why}")


def _say(line: str) -> None:
    """Print a line with words of the server's."""
    print(shown(line, longest=_LONGEST_LINE))


def _as_token(string: str) -> str:
    """A token between others, with its line breaks and the like visible."""
    return shown(repr(string)[1:-1], longest=_LONGEST_LINE)


def _placement(model: ModelDescription) -> str:
    """What is not as usual about how it was loaded."""
    layers = ", ".join(f"{count} layers on {device}" for device, count in sorted(model.devices.items()))
    facts = (layers, model.quantization and f"quantized: {model.quantization}", model.revision)
    return "".join(f", {fact}" for fact in facts if fact)


def _run(arguments: argparse.Namespace) -> int:
    if arguments.top < 0:
        raise InvalidRequestError(f"--top is {arguments.top}: it must be 0 or more")
    with _connect(arguments) as llm:
        llm.run(arguments.sentences)
        tokens, lengths, logits = llm.tokens(), llm.mask().sum(dim=1).tolist(), llm.logits().float()
        for row, length in enumerate(lengths):
            strings = llm.tokens_to_strings(tokens[row, :length])
            print(" | ".join(_as_token(string) for string in strings))
            best = torch.softmax(logits[row, length - 1], dim=0).topk(min(arguments.top, logits.shape[-1]))
            for probability, string in zip(best.values, llm.tokens_to_strings(best.indices), strict=True):
                print(f"  {probability:6.1%}  '{_as_token(string)}'")
    return 0


def _get(arguments: argparse.Namespace) -> int:
    name, method = arguments.tensor, METHODS[arguments.tensor]
    with _connect(arguments) as llm:
        if arguments.sentences:
            llm.run(arguments.sentences)
        elif method.of_run or name == "unembed":
            raise InvalidRequestError(f"{name} needs sentences to run: transparent-llm get {name} ... SENTENCE")
        indices = {argument: getattr(arguments, argument) for argument in method.arguments}
        if name == "unembed":
            indices = {argument: getattr(arguments, argument) for argument in ("batch_i", "layer", "pos")}
        missing = [a for a, v in indices.items() if v is None and not (name == "attention_output" and a == "head")]
        if missing:
            raise InvalidRequestError(f"{name} needs {', '.join(f'--{argument}' for argument in missing)}")
        value = _logit_lens(llm, arguments) if name == "unembed" else getattr(llm, name)(**indices)
        model = llm.describe()
    named = _named_tensors(method, value)
    metadata = {f"dims{header.removeprefix(name)}": ",".join(dims) for header, (_, dims) in named.items()}
    metadata.update(model=model.info.name, model_digest=model.digest)
    metadata.update({argument: str(value) for argument, value in indices.items() if value is not None})
    stays = tensor_file.write(arguments.output, {header: t for header, (t, _) in named.items()}, metadata)
    for header, (tensor, dims) in named.items():
        line = f"{arguments.output}: {header} {dtypes.name(tensor.dtype)} {list(tensor.shape)} ({','.join(dims)})"
        print(line, file=sys.stdout if stays else sys.stderr)  # standard output may be what was written to
    return 0


def _named_tensors(method: Method, value: Result) -> dict[str, tuple[torch.Tensor, tuple[str, ...]]]:
    """Those of a value with the names of their axes, under the names that they have in headers."""
    if not method.is_parts:
        return {method.name: (value, method.dims or ())}
    given = zip(method.parts, value, strict=True)
    return {f"{method.name}.{part.name}": (tensor, part.dims) for part, tensor in given if tensor is not None}


def _logit_lens(llm: RemoteTransparentLlm, arguments: argparse.Namespace) -> torch.Tensor:
    residual = llm.residual_out(arguments.layer)
    batch_i = checked_index("batch_i", arguments.batch_i, residual.shape[0])
    n_tokens = int(llm.last()[batch_i]) + 1
    vector = residual[batch_i, checked_index("pos", arguments.pos, residual.shape[1], n_tokens)]
    return llm.unembed(vector, normalize=not arguments.no_normalize)


def _health(arguments: argparse.Namespace) -> int:
    with RemoteTransparentLlm(arguments.target, timeout_s=arguments.timeout_s, **_access(arguments)) as llm:
        serving = llm._calls.is_serving()  # which says why nobody answers
    print("serving" if serving else "not serving")
    return 0 if serving else 1


def _demo(arguments: argparse.Namespace) -> int:  # noqa: ARG001 - every command takes them
    from transparent_llm.demo import demo

    demo()
    return 0
