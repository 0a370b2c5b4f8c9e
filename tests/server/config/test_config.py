"""How a model is named on the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from transparent_llm.errors import InvalidRequestError
from transparent_llm_server.config.server import MIB, ModelConfig, ServerConfig, settings_of
from transparent_llm_server.demo import DEMO_MODEL


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with some models in it."""
    for name in ("models/gpt2", "a=b", "models/x=y", "=odd"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "file.bin").touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("text", "alias", "source"),
    [
        ("gpt2", "gpt2", "gpt2"),
        ("org/name-7B", "org/name-7B", "org/name-7B"),
        ("small=gpt2", "small", "gpt2"),
        ("small=org/name-7B", "small", "org/name-7B"),
        ("models/gpt2", "gpt2", "models/gpt2"),
        ("./models/gpt2/", "gpt2", "./models/gpt2/"),
        ("models/gpt2/../x=y", "x=y", "models/gpt2/../x=y"),
        ("small=models/gpt2", "small", "models/gpt2"),
        ("a=b", "a=b", "a=b"),
        ("=odd", "=odd", "=odd"),
        ("a=c", "a", "c"),
        ("models/x=y", "x=y", "models/x=y"),
        ("small=models/x=y", "small", "models/x=y"),
        ("small=a=b", "small", "a=b"),
        ("file.bin", "file.bin", "file.bin"),
    ],
)
def test_a_model_has_an_alias_and_a_source(text: str, alias: str, source: str) -> None:
    assert ModelConfig.parse(text) == ModelConfig(source=source, alias=alias)


def test_the_embedded_model_has_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    embedded = ModelConfig(source=str(DEMO_MODEL), alias="demo")
    assert ModelConfig.parse("demo") == ModelConfig.of({"source": "demo"}, "models[0]") == embedded
    assert ModelConfig.parse("small=demo") == ModelConfig(source=str(DEMO_MODEL), alias="small")
    (tmp_path / "demo").mkdir()
    assert ModelConfig.parse("demo") == ModelConfig(source="demo", alias="demo")  # what is here comes first


def test_a_folder_is_called_by_its_own_name_wherever_it_is_named_from(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder / "models" / "gpt2")
    assert ModelConfig.parse(".").alias == "gpt2"
    assert ModelConfig.parse("..").alias == "models"
    assert ModelConfig.parse(str(folder / "models" / "gpt2")).alias == "gpt2"


@pytest.mark.parametrize("text", ["", "=", "small=", "=gpt2", "=models/gpt2"])
def test_an_empty_side_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        ModelConfig.parse(text)
    assert refused.value.message == f"--model {text!r}: write NAME_OR_DIR or ALIAS=NAME_OR_DIR"


@pytest.mark.parametrize(
    ("listen", "is_unix"), [("unix:/tmp/llm.sock", True), ("127.0.0.1:0", False), ("unix-host:50051", False)]
)
def test_a_socket_file_is_told_from_a_port(listen: str, is_unix: bool) -> None:
    assert ServerConfig(listen=listen).is_unix == is_unix


def test_a_server_listens_to_its_own_machine_only_unless_told_otherwise() -> None:
    assert ServerConfig().listen.startswith("127.0.0.1:")


def test_the_default_chunk_is_one_that_clients_may_ask_for() -> None:
    config = ServerConfig()
    assert config.chunk_bytes == MIB <= config.max_chunk_bytes


# A configuration file


def test_a_file_has_lists_of_names(folder: Path) -> None:
    (folder / "server.toml").write_text('page = "127.0.0.1:0"\npage_hosts = ["a.example", "b.example"]\n')
    config = ServerConfig.of(settings_of(folder / "server.toml"))
    assert (config.page, config.page_hosts) == ("127.0.0.1:0", ("a.example", "b.example"))


@pytest.mark.parametrize("names", ["a.example", [1], [""], 3])
def test_names_are_a_list_of_words(names: object) -> None:
    with pytest.raises(InvalidRequestError, match=r'page_hosts is .*: it must be a list like \["NAME", "NAME"\]'):
        ServerConfig.of({"page_hosts": names})


def test_a_file_sets_what_flags_set(folder: Path) -> None:
    (folder / "server.toml").write_text(
        'listen = "0.0.0.0:50051"\nmodels = ["small=models/gpt2"]\ndtype = "bfloat16"\nmax_read_bytes = 1_000_000\n'
        'drain_s = 5\ntokens_file = "tokens"\nshared_memory = false\n',
        encoding="utf-8",
    )
    assert ServerConfig.of(settings_of(folder / "server.toml")) == ServerConfig(
        listen="0.0.0.0:50051",
        models=(ModelConfig("models/gpt2", "small"),),
        dtype=torch.bfloat16,
        max_read_bytes=1_000_000,
        drain_s=5.0,
        tokens_file=Path("tokens"),
        shared_memory=False,
    )


def test_a_file_has_tables_of_models(folder: Path) -> None:
    (folder / "server.toml").write_text(
        'dtype = "bfloat16"\nmodel_bytes = 1_000_000\n'
        '[[models]]\nsource = "models/gpt2"\n'
        '[[models]]\nsource = "org/big"\nalias = "big"\naliases = ["huge", "7B"]\nrevision = "v2"\n'
        'dtype = "float16"\ndevice = "cpu"\nload = "on_demand"\ndevice_map = "auto"\nmax_memory = "cpu=1GiB"\n'
        'offload_dir = "offloaded"\nquantization = "torchao-int8"\n',
        encoding="utf-8",
    )
    placed = {"device_map": "auto", "max_memory": "cpu=1GiB", "offload_dir": Path("offloaded")}
    big = ModelConfig(
        "org/big",
        "big",
        ("huge", "7B"),
        "v2",
        torch.float16,
        "cpu",
        **placed,
        quantization="torchao-int8",
        load="on_demand",
    )
    assert ServerConfig.of(settings_of(folder / "server.toml")) == ServerConfig(
        models=(ModelConfig("models/gpt2", "gpt2"), big), dtype=torch.bfloat16, model_bytes=1_000_000
    )
    assert [model.is_on_demand for model in (ModelConfig("a", "a"), big)] == [False, True]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({}, r'models\[1\] has no source: write source = "NAME_OR_DIR"'),
        ({"source": ""}, r"models\[1\] has no source"),
        ({"source": 7}, r"models\[1\] has no source"),
        ({"source": "a", "alais": "b"}, r"unknown setting alais of models\[1\]; known are adapter, alias, aliases, "),
        ({"source": "a", "alias": 1}, r"models\[1\]\.alias is 1: it must be text"),
        ({"source": "a", "alias": ""}, r"models\[1\]\.alias is empty: leave it out"),
        (
            {"source": "a", "aliases": "b"},
            r"models\[1\]\.aliases is 'b': it must be a list like \[\"NAME\", \"NAME\"\]",
        ),
        ({"source": "a", "aliases": [""]}, r"models\[1\]\.aliases is \[''\]: it must be a list"),
        ({"source": "a", "revision": 2}, r"models\[1\]\.revision is 2: it must be text"),
        (
            {"source": "a", "dtype": "int8"},
            r"models\[1\]\.dtype is 'int8': it must be one of float32, bfloat16, float16",
        ),
        ({"source": "a", "device": 0}, r"models\[1\]\.device is 0: it must be text"),
        ({"source": "a", "device_map": {}}, r"models\[1\]\.device_map is \{\}: it must be text"),
        ({"source": "a", "load": "lazy"}, r"models\[1\]\.load is 'lazy': it must be pinned or on_demand"),
    ],
)
def test_a_table_that_cannot_be_is_refused_by_its_place(table: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        ServerConfig.of({"models": ["gpt2", table]})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_read_byte": 1}, "unknown setting max_read_byte; known are access_log, "),
        ({"max_read_bytes": "1"}, "max_read_bytes is '1': it must be a whole number"),
        ({"max_read_bytes": True}, "max_read_bytes is True: it must be a whole number"),
        ({"max_read_bytes": -1}, "max_read_bytes is -1: it must be a number, 0 or more"),
        ({"drain_s": float("nan")}, "drain_s is nan: it must be a number, 0 or more"),
        ({"drain_s": "long"}, "drain_s is 'long': it must be a number"),
        ({"insecure": 1}, "insecure is 1: it must be true or false"),
        ({"listen": 50051}, "listen is 50051: it must be text"),
        ({"metrics_listen": 9464}, "metrics_listen is 9464: it must be text"),
        ({"access_log": "xml"}, "access_log is 'xml': it must be text or json"),
        ({"tls_cert": 1}, "tls_cert is 1: it must be the name of a file"),
        ({"dtype": "float8"}, "dtype is 'float8': it must be one of float32, bfloat16, float16"),
        ({"models": "gpt2"}, "models is 'gpt2': it must be a list like"),
        ({"models": [1]}, r"models is \[1\]: it must be a list like"),
    ],
)
def test_a_setting_that_cannot_be_is_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        ServerConfig.of(settings)


def test_a_file_that_cannot_be_read_is_named(folder: Path) -> None:
    with pytest.raises(InvalidRequestError, match=r"cannot read the configuration .*none\.toml"):
        settings_of(folder / "none.toml")
    (folder / "bad.toml").write_text("listen =", encoding="utf-8")
    with pytest.raises(InvalidRequestError, match=r"cannot read the configuration .*bad\.toml"):
        settings_of(folder / "bad.toml")
