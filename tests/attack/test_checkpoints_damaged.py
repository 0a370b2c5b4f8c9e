"""Folders that are damaged, or made to harm whoever reads them, are refused in one line, however they are asked for."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from attack.checkpoint_folders import CODE, ENVIRONMENT, MARK, ROWS, load, require_one_line
from support.models.checkpoints import (
    INDEX,
    WEIGHTS,
    Damage,
    all_of,
    config,
    damaged,
    foldered,
    linked,
    piped,
    put,
    removed,
    settings_of,
    sharded,
    tensors,
    truncated,
    without,
    written,
)
from support.servers.servers import running
from transparent_llm import RemoteTransparentLlm
from transparent_llm.errors import InvalidRequestError, ModelRefusedError
from transparent_llm_server import TransformerLensTransparentLlm
from transparent_llm_server.config.model import ON_DEMAND, ModelConfig

TEMPLATE = "additional_chat_templates/a.jinja"
_Index = Callable[[Path, dict[str, Any]], None]


def elsewhere(name: str) -> _Index:
    """The index says that a tensor is in the other file."""

    def change(_: Path, index: dict[str, Any]) -> None:
        index["weight_map"][name] = {"a.safetensors": "b.safetensors"}.get(index["weight_map"][name], "a.safetensors")

    return change


def in_both(folder: Path, _: dict[str, Any]) -> None:
    """Both files have a tensor, each with its own numbers."""
    first, second = (tensors(folder, f"{file}.safetensors") for file in "ab")
    name = min(first)
    put(folder, {**second, name: first[name] + 1}, "b.safetensors")


def index_says(**settings: Any) -> _Index:
    return lambda _, index: index.update(settings)


POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'a' * 64}\nsize 547400\n"
"""What is in a folder for a file that Git LFS did not fetch."""


def header(size: int, text: bytes = b"{}") -> bytes:
    """The beginning of a file of safetensors."""
    return size.to_bytes(8, "little") + text


DAMAGED: dict[str, tuple[Damage, str]] = {
    "weights that end early": (
        truncated(WEIGHTS, 20_000),
        rf"{WEIGHTS} is damaged: it ends early, after 20000 of 5\d{{5}} bytes; fetch it again",
    ),
    "weights that end within their header": (
        truncated(WEIGHTS, 200),
        rf"{WEIGHTS} is damaged: it ends within its header, after 200 bytes; fetch it again",
    ),
    "weights without a byte": (
        truncated(WEIGHTS, 0),
        rf"{WEIGHTS} is damaged: it ends within its header, after 0 bytes; fetch",
    ),
    "weights that Git LFS did not fetch": (
        written(WEIGHTS, POINTER),
        r"its model\.safetensors is a pointer of Git LFS, not the file itself: run git lfs pull in its folder",
    ),
    "one of two files that Git LFS did not fetch": (
        all_of(sharded(), written("b.safetensors", POINTER)),
        r"its b\.safetensors is a pointer of Git LFS",
    ),
    "a configuration that Git LFS did not fetch": (
        written("config.json", POINTER),
        r"its config\.json is a pointer of",
    ),
    "a tokenizer that Git LFS did not fetch": (
        written("tokenizer.json", POINTER),
        r"its tokenizer\.json is a pointer of",
    ),
    "a header of 2**63 bytes": (written(WEIGHTS, header(2**63)), rf"{WEIGHTS} is damaged: "),
    "a header of 99 MB that is not there": (written(WEIGHTS, header(99_000_000)), rf"{WEIGHTS} is damaged: "),
    "a header that is no JSON": (written(WEIGHTS, header(2, b"{]")), rf"{WEIGHTS} is damaged: "),
    "a tensor of 2**64 elements": (
        written(
            WEIGHTS, header(69, b'{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}}'[:69])
        ),
        rf"{WEIGHTS} is damaged: ",
    ),
    "a pickle by the name of weights": (written(WEIGHTS, b"\x80\x04N."), rf"{WEIGHTS} is damaged: "),
    "a file of the index that is missing": (
        all_of(sharded(), removed("b.saf*")),
        r"names b\.safetensors, which is missing \(1 of 2 files\): fetch what is missing",
    ),
    "all files of the index are missing": (
        all_of(sharded(), removed("?.saf*")),
        r"names a\.safetensors, b\.safetensors, of which none is here \(2 of 2 files\): fetch what is missing",
    ),
    "a tensor in another file": (
        sharded(elsewhere("transformer.wpe.weight")),
        r"tensor transformer\.wpe\.weight is not in",
    ),
    "a tensor that is in none": (
        sharded(lambda _, index: index["weight_map"].update(other="a.safetensors")),
        r"tensor other is not in a\.safetensors, where",
    ),
    "a tensor in both files": (sharded(in_both), r"is both in a\.safetensors and in b\.safetensors"),
    "an index of another folder": (
        sharded(index_says(weight_map={"x": "../other/a.safetensors"})),
        r"names \.\./other/a\.safetensors, which is not a safetensors file in this folder",
    ),
    "an index of pickles": (
        sharded(index_says(weight_map={"x": "a.bin"})),
        r"names a\.bin, which is not a safetensors",
    ),
    "an index of nothing": (sharded(index_says(weight_map={})), r"has no weight_map"),
    "an index of numbers": (sharded(index_says(weight_map={"x": 3})), r"has no weight_map"),
    "an index without metadata": (sharded(index_says(metadata=None)), r"has no metadata"),
    "an index that is no JSON": (all_of(sharded(), written(INDEX, "{")), rf"its {INDEX} is not JSON"),
    "a configuration that is no JSON": (written("config.json", "{"), r"its config\.json is not JSON: Expecting"),
    "a configuration without a byte": (written("config.json", ""), r"its config\.json is not JSON"),
    "a configuration that is no text": (written("config.json", b"\xff\xfe\x00"), r"its config\.json is not JSON"),
    "a configuration that is a list": (written("config.json", "[1]"), r"its config\.json holds a list"),
    "a configuration 100,000 deep": (written("config.json", "[" * 100_000), r"its config\.json is not JSON"),
    "settings of text that are no JSON": (
        written("generation_config.json", "{"),
        r"generation_config\.json is not JSON",
    ),
    "settings of a tokenizer that are no JSON": (
        written("tokenizer_config.json", "{"),
        r"tokenizer_config\.json is not J",
    ),
    "a tokenizer that is no JSON": (
        written("tokenizer.json", "{"),
        r"its tokenizer\.json is not JSON: Expecting property name",
    ),
    "a tokenizer that is none": (written("tokenizer.json", "{}"), r"no tokenizer for 'model': "),
    "no heads": (config(n_head=0), r"says n_head = 0; it must be a number from 1"),
    "fewer than no heads": (config(n_head=-4), r"says n_head = -4; "),
    "heads that do not divide": (config(n_head=3), r"no language model can be built from its config\.json: "),
    "a layer and a half": (config(n_layer=1.5), r"says n_layer = 1\.5; "),
    "layers in words": (config(n_layer="two\x1b[2J"), r"says n_layer = 'two\\x1b\[2J'; "),
    "layers that are true": (config(n_layer=True), r"says n_layer = True; "),
    "a billion layers": (config(n_layer=10**9), r"says n_layer = 1000000000, but the files hold 28 tensors in all"),
    "a vocabulary of a billion": (config(vocab_size=10**9), r"says vocab_size = 1000000000, but the files hold"),
    "a width of 2**70": (config(n_embd=2**70), r"says n_embd = 1180591620717411303424; "),
    "a context of nothing": (config(n_positions=0), r"says n_positions = 0; "),
    "a context of a million": (
        config(n_positions=10**6),
        r"config\.json describes 64\d+ weights, its files hold 1\d+: ",
    ),
    "an activation that is none": (config(activation_function="x"), r"no language model can be built.*KeyError"),
    "a type that nobody knows": (
        config(model_type="nope"),
        r"says model_type 'nope', which transformers .* does not know",
    ),
    "a type that is a list": (config(model_type=["gpt2"]), r"says model_type \['gpt2'\], which"),
    "a type of no language model": (config(model_type="vit"), r"no language model can be built from its config\.json"),
    "weights of another name": (config(transformers_weights="x.safetensors"), r"sets transformers_weights; "),
    "an adapter beside the model": (
        written("adapter_config.json", '{"peft_type": "LORA", "base_model_name_or_path": "x"}'),
        r"holds an adapter \(adapter_config\.json\) beside its model: move that into a folder of its own, and name",
    ),
    "an adapter alone": (
        all_of(removed("config.json", WEIGHTS), written("adapter_config.json", "{}")),
        r"holds an adapter \(adapter_config\.json\), which is no model by itself: .*--model NAME=BASE --adapter FOLDER",
    ),
    "an adapter without settings": (
        written("adapter_model.safetensors", ""),
        r"holds an adapter \(adapter_model\.safetensors\) beside",
    ),
    "a distributed checkpoint": (
        written("shard-00000-model-00001-of-00001.safetensors", ""),
        r"holds the parts of a distributed checkpoint",
    ),
    "code for a type that nobody knows": (
        all_of(
            config(model_type="nope", auto_map={"AutoConfig": "c.C", "AutoModelForCausalLM": "c.M"}),
            written("c.py", CODE),
        ),
        r"requires running its own code \(auto_map\), which is never done",
    ),
    "a pipe in place of the configuration": (piped("config.json"), r"its config\.json is a pipe, not a file"),
    "a pipe in place of the weights": (piped(WEIGHTS), r"its model\.safetensors is a pipe"),
    "a pipe in place of the tokenizer": (piped("tokenizer.json"), r"its tokenizer\.json is a pipe"),
    "a pipe that is not asked for": (piped("chat_template.jinja"), r"its chat_template\.jinja is a pipe"),
    "a pipe in place of an index": (all_of(removed(WEIGHTS), piped(INDEX)), rf"its {INDEX} is a pipe"),
    "a folder in place of the configuration": (foldered("config.json"), r"its config\.json is a folder"),
    "a folder in place of the weights": (foldered(WEIGHTS), r"its model\.safetensors is a folder"),
    "a link to a file of the machine": (
        linked("config.json", "/etc/passwd"),
        r"config\.json is a link that leads outside the model's",
    ),
    "a link to a device": (
        linked("tokenizer.json", "/dev/zero"),
        r"tokenizer\.json is a link that leads outside the model's folder",
    ),
    "a link to its neighbour": (
        lambda folder: (
            (folder.parent / "other.json").write_bytes((folder / "config.json").read_bytes()),
            linked("config.json", "../other.json")(folder),
        )[1],
        r"config\.json is a link that leads outside the model's folder",
    ),
    "a link among the templates": (
        lambda folder: (foldered("additional_chat_templates")(folder), linked(TEMPLATE, "/etc/passwd")(folder))[1],
        r"its a\.jinja is a link that leads outside the model's folder",
    ),
    "a tokenizer in another folder": (
        settings_of("tokenizer_config.json", fast_tokenizer_files=["../other/tokenizer.4.0.0.json"]),
        r"its tokenizer_config\.json names files other than those in its folder \(fast_tokenizer_files\)",
    ),
    "a link to nothing": (linked("config.json", "nothing"), r"config\.json is a broken link"),
    "a link to itself": (linked("config.json", "config.json"), r"config\.json is a broken link"),
}
"""What -> (what is done to a GPT-2, what is said)."""


@pytest.mark.parametrize("fault", DAMAGED)
def test_what_is_damaged_is_refused_in_one_line(fault: str, whole: Callable[[str], Path], tmp_path: Path) -> None:
    damage, said = DAMAGED[fault]
    folder = damaged(whole("gpt2"), tmp_path / "model", damage)
    began = time.monotonic()
    with pytest.raises((ModelRefusedError, InvalidRequestError), match=said) as refused:
        load(folder)
    print(f"\n{fault}: refused after {time.monotonic() - began:.2f} s")
    require_one_line(refused.value, tmp_path)
    assert not list(tmp_path.rglob(MARK))


NOT_THERE: dict[str, tuple[Damage, str]] = {
    "no weights": (removed(WEIGHTS), rf"cannot load model 'model' from the folder: there is no {WEIGHTS}"),
    "pickles": (
        all_of(removed(WEIGHTS), written("pytorch_model.bin", "x"), written("old.pt", "x")),
        r"folder: its weights are pickles \(old\.pt, pytorch_model\.bin\), which can run code when they are read",
    ),
    "no configuration": (
        removed("config.json"),
        r"cannot load model 'model' from the folder: there is no config\.json; it holds generation_config\.json",
    ),
    "nothing": (removed("*"), r"cannot load model 'model' from the folder: it is empty"),
    "a folder of models": (
        lambda folder: ([path.unlink() for path in folder.iterdir()], written("a/config.json", "{}")(folder))[1],
        r"from the folder: there is no config\.json in it, but in its folders a: name one of them",
    ),
    "no tokenizer": (
        removed("tokenizer*"),
        r"no tokenizer for 'model': its files hold no words; put tokenizer\.json, or what else its",
    ),
}


@pytest.mark.parametrize("fault", NOT_THERE)
def test_what_is_not_there_is_said(fault: str, whole: Callable[[str], Path], tmp_path: Path) -> None:
    damage, said = NOT_THERE[fault]
    with pytest.raises(InvalidRequestError, match=said) as refused:
        load(damaged(whole("gpt2"), tmp_path / "model", damage))
    require_one_line(refused.value, tmp_path)


NAMES = {
    "/models/nowhere": r"'nowhere': there is no such folder on the machine of the server$",
    "./nowhere": r"'nowhere': there is no such folder on the machine of the server$",
    "models/llama/7b": r"'models/llama/7b': there is no such folder on .*, and the hub's models are called NAME",
    "my model": r"'my model': there is no such folder on the machine of the server, and the hub's",
    "~/models/gpt2": r"'gpt2': '~' stands for the home folder only where a shell reads it unquoted; write the whole",
    "nowhere.gguf": r"'nowhere\.gguf': there is no such file on the machine of the server",
    "{folder}/config.json": r"'config\.json': it is a file: name the folder with its config\.json, or a file whose",
    "{folder}:nowhere.gguf": r"'gpt2:nowhere\.gguf': there is no file nowhere\.gguf in its folder",
}


@pytest.mark.parametrize("name", NAMES)
def test_a_name_of_nothing_is_told_at_once(name: str, whole: Callable[[str], Path], tmp_path: Path) -> None:
    """However it is written; and nobody is asked for what cannot be a name of the hub."""
    began = time.monotonic()
    with pytest.raises(InvalidRequestError, match=rf"cannot load model {NAMES[name]}") as told:
        TransformerLensTransparentLlm(name.format(folder=whole("gpt2")))
    require_one_line(told.value, tmp_path)
    assert str(whole("gpt2").parent) not in told.value.message
    assert time.monotonic() - began < 5


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(whole: Callable[[str], Path], tmp_path: Path) -> None:
    folder = damaged(whole("gpt2"), tmp_path / "model", lambda folder: (folder / WEIGHTS).chmod(0))
    with pytest.raises(ModelRefusedError, match=r"its model\.safetensors cannot be read by this user"):
        load(folder)


def start(folder: Path, said: str = "y\n" * 10) -> tuple[int, str, str]:
    """A server is to serve a folder, and somebody says yes on its standard input: code, standard output and error."""
    command = [sys.executable, "-m", "transparent_llm", "serve", "--device", "cpu", "--listen", "127.0.0.1:0"]
    ended = subprocess.run(
        [*command, "--model", str(folder)],
        input=said,
        capture_output=True,
        text=True,
        timeout=120,
        env=ENVIRONMENT,
    )
    return ended.returncode, ended.stdout, ended.stderr


STARTED = {
    "code": DAMAGED["code for a type that nobody knows"],
    "a pipe": DAMAGED["a pipe in place of the weights"],
    "a head that is missing": (without("ln_f"), r"its files lack transformer\.ln_f"),
    "no heads": DAMAGED["no heads"],
}


@pytest.mark.parametrize("fault", STARTED)
def test_a_server_that_is_to_serve_such_a_folder_ends_with_one_line(
    fault: str, whole: Callable[[str], Path], tmp_path: Path
) -> None:
    damage, said = STARTED[fault]
    began = time.monotonic()
    code, output, errors = start(damaged(whole("gpt2"), tmp_path / "model", damage))
    print(f"\n{fault}: ended after {time.monotonic() - began:.1f} s")
    assert (code, output) == (1, "")
    assert "Traceback" not in errors
    assert "LOAD REPORT" not in errors
    lines = [line for line in errors.splitlines() if line.startswith("transparent-llm: ")]
    assert len(lines) == 1
    assert re.search(said, lines[0])
    assert not list(tmp_path.rglob(MARK))


def test_whoever_asks_for_a_model_on_demand_is_told_why_without_where(
    whole: Callable[[str], Path], tmp_path: Path
) -> None:
    faults = {
        "missing": without("ln_f"),
        "piped": piped("config.json"),
        "truncated": truncated(WEIGHTS, 2000),
        "tokenless": removed("tokenizer*"),
        "odd": config(activation_function="x"),
        "bare": removed("*"),
    }
    folders = {name: damaged(whole("gpt2"), tmp_path / name, damage) for name, damage in faults.items()}
    folders["nowhere"] = tmp_path / "nowhere"
    models = tuple(ModelConfig(str(folder), name, load=ON_DEMAND) for name, folder in folders.items())
    with running(models=models) as server:
        with RemoteTransparentLlm(server.address, model="bare", timeout_s=60) as llm:
            assert not [model for model in llm.server_info().models if str(tmp_path) in model.detail]
        for name in folders:
            with RemoteTransparentLlm(server.address, model=name, timeout_s=60) as llm:
                with pytest.raises((ModelRefusedError, InvalidRequestError)) as told:
                    llm.run_tokens(ROWS)
                require_one_line(told.value, tmp_path)
                assert repr(name) in told.value.message
                described = next(model for model in llm.server_info().models if model.info.name == name)
                assert described.detail == told.value.message
