"""Models that are spread over devices have the values that they have on one, bit for bit.

Here the devices are this machine's memory and its disk: weights of layers on disk are placeholders between calls, so
that a value which reads them without gathering them fails. Whether tensors of two devices meet shows in
`test_two_devices.py`.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from support.models.families import save
from transparent_llm.errors import InvalidRequestError, ModelRefusedError
from transparent_llm_server import TransformerLensTransparentLlm
from transparent_llm_server.models.forward.batch import run_together
from transparent_llm_server.models.placement.device_map import device_map_of, max_memory_of
from transparent_llm_server.models.placement.layout import DeviceLayout

FAMILIES = ("gpt2", "llama_gqa", "mixtral", "gemma2")
N_GPUS = torch.cuda.device_count()
ROWS = [[1, 2, 3, 4, 5], [6, 7]]
BLOCKS = {"gpt2": "transformer.h"}
OTHERS = {
    "gpt2": ("transformer.wte", "transformer.wpe", "transformer.drop", "transformer.ln_f", "lm_head"),
    "": ("model.embed_tokens", "model.norm", "model.rotary_emb", "lm_head"),
}
VALUES: tuple[tuple[str, tuple[Any, ...]], ...] = (
    ("logits", ()),
    ("unembed", (torch.linspace(-1, 1, 64), True)),
    ("unembed", (torch.linspace(-1, 1, 64), False)),
    *(
        (name, (layer,))
        for layer in (0, 1)
        for name in ("residual_in", "residual_after_attn", "residual_out", "ffn_out")
    ),
    *((name, (1, layer, 1)) for layer in (0, 1) for name in ("decomposed_ffn_out", "neuron_activations")),
    *(("neuron_output", (layer, 95)) for layer in (0, 1)),
    *(("attention_matrix", (0, layer, 3)) for layer in (0, 1)),
    *(("attention_output", (0, layer, 4, head)) for layer in (0, 1) for head in (None, 2)),
    *(("decomposed_attn", (0, layer)) for layer in (0, 1)),
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("spread")
    return {family: save(family, root / family) for family in FAMILIES}


def map_file(folder: Path, family: str, others: str | int, *layers: str | int) -> str:
    blocks = BLOCKS.get(family, "model.layers")
    placed = dict.fromkeys(OTHERS.get(family, OTHERS[""]), others)
    placed.update({f"{blocks}.{index}": place for index, place in enumerate(layers)})
    path = folder / f"{family}-{others}-{'-'.join(map(str, layers))}.json"
    path.write_text(json.dumps(placed))
    return str(path)


def require_same_values(spread: TransformerLensTransparentLlm, whole: TransformerLensTransparentLlm) -> None:
    for llm in (spread, whole):
        llm.run_tokens(ROWS)
    for name, arguments in VALUES:
        got, wanted = getattr(spread, name)(*arguments), getattr(whole, name)(*arguments)
        assert torch.equal(got.cpu(), wanted.cpu()), (name, arguments)
    assert spread.describe().digest == whole.describe().digest


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("places", [("cpu", "cpu", "disk"), ("cpu", "disk", "disk"), ("disk", "disk", "cpu")], ids=str)
def test_a_model_partly_on_disk_has_the_values_of_one_in_memory(
    folders: dict[str, Path], family: str, places: tuple[str, str, str], tmp_path: Path
) -> None:
    source = str(folders[family])
    spread = TransformerLensTransparentLlm(
        source, device_map=map_file(tmp_path, family, *places), offload_dir=tmp_path / "offloaded"
    )
    whole = TransformerLensTransparentLlm(source)
    assert any(parameter.is_meta for parameter in spread.bridged._hf.parameters())
    require_same_values(spread, whole)
    known = spread.describe()
    assert known.device == ", ".join(dict.fromkeys(places))
    assert known.devices == dict(Counter(places[1:]))
    assert known.weight_bytes < whole.describe().weight_bytes


@pytest.mark.parametrize("family", FAMILIES)
def test_accelerate_spreads_what_does_not_fit(folders: dict[str, Path], family: str, tmp_path: Path) -> None:
    source = str(folders[family])
    whole = TransformerLensTransparentLlm(source)
    memory = f"cpu={whole.describe().weight_bytes * 3 // 4}"
    spread = TransformerLensTransparentLlm(source, device_map="auto", max_memory=memory, offload_dir=tmp_path)
    assert spread.describe().device == "cpu, disk"
    require_same_values(spread, whole)


def test_a_model_that_fits_lies_on_one_device(folders: dict[str, Path]) -> None:
    spread = TransformerLensTransparentLlm(str(folders["gpt2"]), device_map="sequential", max_memory="cpu=1GiB")
    assert (spread.describe().device, spread.describe().devices) == ("cpu", {})
    require_same_values(spread, TransformerLensTransparentLlm(str(folders["gpt2"])))


@pytest.fixture
def often_switching() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def test_values_are_read_while_other_threads_run(
    folders: dict[str, Path], tmp_path: Path, often_switching: None
) -> None:
    """All gather the weights of the same modules, and drop them."""
    places = map_file(tmp_path, "llama_gqa", "cpu", "disk", "disk")
    llm = TransformerLensTransparentLlm(str(folders["llama_gqa"]), device_map=places)
    llm.run_tokens(ROWS)
    wanted = [llm.attention_output(0, layer, 4, 2) for layer in (0, 1)]
    logits = llm.logits()

    def read(_: int) -> bool:
        values = [llm.attention_output(0, layer, 4, 2) for layer in (0, 1)]
        return all(map(torch.equal, values, wanted))

    def run(_: int) -> bool:
        runner = llm.copy()
        runner.run_tokens(ROWS)
        return torch.equal(runner.logits(), logits)

    with ThreadPoolExecutor(4) as pool:
        reads, runs = pool.map(read, range(300)), pool.map(run, range(40))
        assert all(reads)
        assert all(runs)


def test_a_map_may_not_spread_a_block(folders: dict[str, Path], tmp_path: Path) -> None:
    placed = json.loads(Path(map_file(tmp_path, "llama_gqa", "cpu", "cpu")).read_text())
    placed.update({"model.layers.1.mlp": "disk"})
    placed.update(
        {f"model.layers.1.{part}": "cpu" for part in ("self_attn", "input_layernorm", "post_attention_layernorm")}
    )
    (tmp_path / "map.json").write_text(json.dumps(placed))
    with pytest.raises(InvalidRequestError) as refused:
        TransformerLensTransparentLlm(str(folders["llama_gqa"]), device_map=str(tmp_path / "map.json"))
    assert refused.value.message == (
        "device_map spreads model.layers.1 over cpu, disk: put whole blocks on one device, so that the parts of a "
        "layer are added up where they are"
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"device_map": "even"},
            "device_map 'even' is neither auto, balanced, balanced_low_0, sequential nor a JSON ",
        ),
        ({"max_memory": "0=1GiB"}, "max_memory requires device_map; give one, for example auto"),
        ({"offload_dir": "x"}, "offload_dir requires device_map"),
        (
            {"device_map": "auto", "max_memory": "0=1GiB,gpu=2"},
            "max_memory '0=1GiB,gpu=2' is not understood at 'gpu=2'",
        ),
        ({"device_map": "auto", "max_memory": "0"}, "max_memory '0' is not understood at '0': write DEVICE=SIZE,"),
        ({"device_map": "auto", "max_memory": "0=much"}, "not understood at '0=much'"),
    ],
)
def test_words_that_mean_nothing_are_refused(settings: dict[str, str], message: str, folders: dict[str, Path]) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        TransformerLensTransparentLlm(str(folders["gpt2"]), **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("[]", "does not hold an object"),
        ("{}", "does not hold an object"),
        ('{"": 1.5}', r"'':? ?is on 1\.5; write cpu, disk, cuda:0 or 0|is on 1\.5"),
        ('{"": "meta"}', "device 'meta' is unknown"),
        (f'{{"": {N_GPUS}}}', f"device 'cuda:{N_GPUS}' is not available"),
    ],
)
def test_a_file_that_is_no_map_is_refused(written: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "map.json").write_text(written)
    with pytest.raises(InvalidRequestError, match=message):
        device_map_of(str(tmp_path / "map.json"))


def test_memory_is_written_as_accelerate_takes_it() -> None:
    assert max_memory_of("0=20GiB, 1=1.5GB,cpu=1000,disk=5B") == {0: "20GiB", 1: "1.5GB", "cpu": 1000, "disk": 5}


def test_a_module_is_where_it_or_what_it_is_part_of_was_put() -> None:
    spread = DeviceLayout({"model.layers.1": 1, "model": 0, "lm_head": "disk"})
    assert [spread.place(name) for name in ("model.layers.1.mlp", "model.layers.11", "model.norm", "lm_head")] == [
        "cuda:1",
        "cuda:0",
        "cuda:0",
        "disk",
    ]
    assert spread.device("lm_head") == torch.device("cuda:1")  # where accelerate computes what is offloaded
    assert str(spread) == "cuda:1, cuda:0, disk"
    assert DeviceLayout({"": "cpu"}).place("anything") == "cpu"
    assert DeviceLayout({"model.h.0": "disk", "model.h.1": "disk"}).place("model") == "disk"
    with pytest.raises(InvalidRequestError, match="device_map does not mention lm_head"):
        DeviceLayout({"model": 0}).place("lm_head")


# On accelerators: not run so far, as no machine of this project had one


@pytest.mark.skipif(N_GPUS < 1, reason="needs a GPU; none is here")
@pytest.mark.parametrize("family", FAMILIES)
def test_a_map_may_name_one_gpu(folders: dict[str, Path], family: str, tmp_path: Path) -> None:
    spread = TransformerLensTransparentLlm(str(folders[family]), device_map=map_file(tmp_path, family, 0, 0, 0))
    assert spread.describe().device == "cuda:0"
    require_same_values(spread, TransformerLensTransparentLlm(str(folders[family]), device="cuda:0"))


@pytest.mark.skipif(N_GPUS < 1, reason="needs a GPU; none is here")
def test_a_map_of_a_gpu_and_the_cpu_is_refused_as_nobody_has_seen_it_right(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(ModelRefusedError, match="mixes CPU/disk offload targets with a GPU target"):
        TransformerLensTransparentLlm(
            str(folders["llama_gqa"]), device_map=map_file(tmp_path, "llama_gqa", 0, 0, "cpu")
        )


@pytest.mark.skipif(N_GPUS < 2, reason="needs two GPUs; they are not here")
@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_on_two_gpus_has_the_values_of_one_on_one(
    folders: dict[str, Path], family: str, tmp_path: Path
) -> None:
    spread = TransformerLensTransparentLlm(str(folders[family]), device_map=map_file(tmp_path, family, 0, 0, 1))
    assert spread.describe().devices == {"cuda:0": 1, "cuda:1": 1}
    (capture,) = run_together(spread.bridged, [spread.prepare(ROWS)])
    assert [str(layer.residual_in.device) for layer in capture.layers] == ["cuda:0", "cuda:1"]
    require_same_values(spread, TransformerLensTransparentLlm(str(folders[family]), device="cuda:0"))
