"""GGUF files: what they hold is what is served, and what transformers would leave out or guess is refused."""

from __future__ import annotations

import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from support.models.families import build_tokenizer
from support.models.gguf_files import FILES, rounded, tensors_of, write
from support.servers.servers import running
from transparent_llm import RemoteTransparentLlm
from transparent_llm.errors import InvalidRequestError, ModelRefusedError, TooLargeError
from transparent_llm_server import TransformerLensTransparentLlm
from transparent_llm_server.config.model import ModelConfig
from transparent_llm_server.models.loading.size import weight_bytes

ROWS = [[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14], [6, 7]]


def load(path: Path | str, **settings: Any) -> TransformerLensTransparentLlm:
    return TransformerLensTransparentLlm(str(path), **settings)


def logits(llm: TransformerLensTransparentLlm) -> torch.Tensor:
    llm.run_tokens(ROWS)
    return llm.logits()


def plainly(model: Any) -> torch.Tensor:
    """What the model that was written gives in Hugging Face, without any file."""
    rows = [model(torch.tensor([row])).logits[0] for row in ROWS]
    return torch.stack([torch.nn.functional.pad(row, (0, 0, 0, 14 - len(row))) for row in rows])


@pytest.mark.parametrize("family", FILES)
def test_a_file_gives_what_was_written_into_it(family: str, tmp_path: Path) -> None:
    written = write(tmp_path / "model.gguf", family)
    llm = load(tmp_path / "model.gguf")
    got, wanted = logits(llm), plainly(written)
    assert torch.allclose(got[0], wanted[0], atol=2e-5)
    assert torch.allclose(got[1, :2], wanted[1, :2], atol=2e-5)
    assert llm.describe().quantization == "gguf F32, dequantised"
    assert all(check.passed for check in llm.describe().parity)
    text = "The river comes down, 365 times; naïve."
    own = build_tokenizer()(text)["input_ids"]
    assert llm.encode([text])[0][-len(own) :] == own


def test_blocks_are_the_numbers_that_they_stand_for(tmp_path: Path) -> None:
    """Q8_0 by its definition, on every matrix; then plain Hugging Face with these numbers."""
    written = write(tmp_path / "model.gguf", "qwen2", "Q8_0")
    with torch.no_grad():
        for parameter in written.parameters():
            if parameter.ndim > 1:
                parameter.copy_(torch.from_numpy(rounded(parameter.numpy())))
    llm = load(tmp_path / "model.gguf")
    assert torch.allclose(logits(llm)[0], plainly(written)[0], atol=2e-5)
    assert torch.equal(llm.neuron_output(1, 5), written.model.layers[1].mlp.down_proj.weight[:, 5])
    assert llm.describe().quantization == "gguf Q8_0, dequantised"


def test_the_dtype_is_the_one_that_is_asked_for(tmp_path: Path) -> None:
    write(tmp_path / "model.gguf", "llama_gqa", "Q8_0")
    llm = load(tmp_path / "model.gguf", dtype=torch.bfloat16)
    assert (llm.describe().dtype, llm.neuron_output(0, 0).dtype) == (torch.bfloat16, torch.bfloat16)
    assert llm.describe().digest != load(tmp_path / "model.gguf").describe().digest


def test_the_digest_is_that_of_the_file(tmp_path: Path) -> None:
    write(tmp_path / "model.gguf", "qwen2")
    held = (tmp_path / "model.gguf").read_bytes()
    digests = {load(tmp_path / "model.gguf").describe().digest for _ in range(2)}
    (tmp_path / "model.gguf").write_bytes(held[:-1] + bytes([held[-1] ^ 1]))  # of the last tensor's last number
    digests.add(load(tmp_path / "model.gguf").describe().digest)
    assert len(digests) == 2


def test_it_is_served_from_its_file_its_folder_or_both(tmp_path: Path) -> None:
    folder = tmp_path / "tiny"
    folder.mkdir()
    written = write(folder / "b.gguf", "gpt2", "Q8_0")
    sources = [str(folder / "b.gguf"), str(folder), f"{folder}:b.gguf"]
    models = [ModelConfig.parse(source) for source in sources]
    assert [model.alias for model in models] == ["b", "tiny", "tiny"]
    assert len({load(source).describe().digest for source in sources}) == 1
    assert weight_bytes(str(folder), torch.float32) == sum(p.numel() * 4 for p in written.parameters())
    with running(models=(models[0],)) as server, RemoteTransparentLlm(server.address) as llm:
        assert (llm.describe().quantization, llm.describe().info.name) == ("gguf Q8_0, dequantised", "b")
    (folder / "a.gguf").write_bytes(b"")
    with pytest.raises(
        InvalidRequestError, match=r"it holds 2 GGUF files \(a\.gguf, b\.gguf\); say which: tiny:a\.gguf"
    ):
        load(folder)
    assert load(f"{folder}:b.gguf").describe().architecture == "GPT2LMHeadModel"


def named(**settings: Any) -> dict[str, Any]:
    return {"settings": {key.replace("__", "."): value for key, value in settings.items()}}


OTHERS: dict[str, tuple[dict[str, Any], str]] = {
    "an architecture that is not read": (
        {"architecture": "mamba2"},
        r"architecture is 'mamba2'; of GGUF files, transformers reads bloom, .*gemma3, .*llama, .*qwen3moe",
    ),
    "no language model": ({"architecture": "t5"}, r"architecture is 't5'; of GGUF files"),
    "longer rotations": (
        named(rope__scaling__type="yarn", rope__scaling__factor=4.0),
        r"qwen2\.rope\.scaling\.type is 'yarn' in the file, and None in the configuration that transformers makes of "
        r"it; serve the model from its safetensors files",
    ),
    "heads of another width": (
        named(attention__key_length=32, attention__value_length=32),
        r"qwen2\.attention\.key_length is 32 in the file, and 16\.0 in the configuration",
    ),
    "a setting that nobody knows": (named(attention__magic=1), r"qwen2\.attention\.magic is 1 in the file, and None"),
    "a cap that is left out": (named(final_logit_softcapping=30.0), r"final_logit_softcapping is 30\.0 in the file"),
    "heads of no number": (named(attention__head_count=0), r"says num_attention_heads = 0; "),
    "a million layers": (named(block_count=10**6), r"says num_hidden_layers = 1000000, but the files hold 27 tensors"),
    "a layer more": (named(block_count=3), r"its files lack model\.layers\.2\."),
    "a tensor without a place": (
        {"tensors": {"blk.0.attn_magic.weight": np.ones((4, 4), np.float32)}},
        r"transformers has no place for blk\.0\.attn_magic\.weight of its file",
    ),
    "frequencies that are left out": (
        {"tensors": {"rope_freqs.weight": np.full(8, 2, np.float32)}},
        r"transformers has no place for rope_freqs\.weight of its file",
    ),
    "a tensor that is missing": (
        {"tensors": {"blk.1.ffn_up.weight": None}},
        r"its files lack model\.layers\.1\.mlp\.up",
    ),
    "a matrix of another size": (
        {"tensors": {"blk.1.ffn_up.weight": np.ones((90, 64), np.float32)}},
        r"for model\.layers\.1\.mlp\.up_proj\.weight its file holds 5760 numbers, by its settings it has 6144",
    ),
    "a number that is none": (
        {"tensors": {"blk.1.ffn_norm.weight": np.full(64, np.nan, np.float32)}},
        r"weight model\.layers\.1\.post_attention_layernorm\.weight has elements that are not finite",
    ),
}


@pytest.mark.parametrize("what", OTHERS)
def test_what_would_be_another_model_is_refused(what: str, tmp_path: Path) -> None:
    changes, said = OTHERS[what]
    write(tmp_path / "model.gguf", "qwen2", **changes)
    with pytest.raises(ModelRefusedError, match=said) as refused:
        load(tmp_path / "model.gguf")
    assert refused.value.message.isprintable()
    assert str(tmp_path) not in refused.value.message


def test_what_changes_nothing_may_be_there(tmp_path: Path) -> None:
    neutral = {"rope.scaling.type": "none", "rope.scaling.factor": 1.0, "tensor_data_layout": "Meta AI original pth"}
    ones = {"rope_freqs.weight": np.ones(8, np.float32)}
    write(tmp_path / "model.gguf", "qwen2", settings=neutral, tensors=ones)
    write(tmp_path / "plain.gguf", "qwen2")
    assert torch.equal(logits(load(tmp_path / "model.gguf")), logits(load(tmp_path / "plain.gguf")))


def test_the_largest_gemmas_are_refused_for_what_their_files_do_not_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real number of layers would take minutes; the rule is told of a smaller one."""
    monkeypatch.setattr("transparent_llm_server.models.loading.gguf_settings._SCALES_OF_27B", {"gemma3": 6})
    write(tmp_path / "model.gguf", "gemma3")
    with pytest.raises(
        ModelRefusedError, match=r"gemma3 is of the size 27B, whose scale of attention is not the usual"
    ):
        load(tmp_path / "model.gguf")


def text(words: bytes) -> bytes:
    return struct.pack("<Q", len(words)) + words


def beginning(n_tensors: int = 0, n_settings: int = 1, version: int = 3) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, n_tensors, n_settings)


ARCHITECTURE = text(b"general.architecture") + struct.pack("<I", 8) + text(b"llama")
TENSOR = text(b"a") + struct.pack("<I", 1)
DAMAGED: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "cannot mmap an empty file"),
    "a pickle": (b"\x80\x04N.", "it does not begin with GGUF"),
    "only its beginning": (b"GGUF\x03", "its header leads beyond byte 5"),
    "an old version": (beginning(version=1), "version 1, where 2 and 3 are known"),
    "no architecture": (beginning(0, 0), r"it says no general\.architecture"),
    "2**63 settings": (beginning(0, 2**63), "9223372036854775808 settings, of which 4096 are read at most"),
    "2**63 tensors": (beginning(2**63, 0), "9223372036854775808 tensors, of which 131072 are read at most"),
    "a key of 2**60 bytes": (
        beginning() + struct.pack("<Q", 2**60),
        "1152921504606846976 bytes of text, of which 1024",
    ),
    "a text that ends early": (beginning() + struct.pack("<Q", 900) + b"x", "its header leads beyond byte"),
    "a text that is none": (beginning() + text(b"\xff\xfe"), "'utf-8' codec can't decode"),
    "a type that is none": (beginning() + text(b"k") + struct.pack("<I", 99), "a value of type 99, which is none"),
    "an array of arrays": (
        beginning() + text(b"k") + struct.pack("<IIQ", 9, 9, 1),
        "a value of type 9, which is none",
    ),
    "2**60 words": (
        beginning() + text(b"k") + struct.pack("<IIQ", 9, 8, 2**60),
        "elements of an array, of which 4194304",
    ),
    "words that lead outside": (
        beginning() + text(b"k") + struct.pack("<IIQ", 9, 8, 2**20) + struct.pack("<Q", 2**50),
        "its header leads beyond byte",
    ),
    "a key twice": (beginning(0, 2) + 2 * ARCHITECTURE, r"it sets general\.architecture twice"),
    "no alignment": (
        beginning(0, 2) + ARCHITECTURE + text(b"general.alignment") + struct.pack("<II", 4, 0),
        "general.alignment is 0, where it must be a power of two",
    ),
    "a tensor of many axes": (
        beginning(1) + ARCHITECTURE + text(b"a") + struct.pack("<I", 2**31),
        "2147483648 axes of a, of which 4 are read",
    ),
    "a tensor of 2**63 numbers": (
        beginning(1) + ARCHITECTURE + TENSOR + struct.pack("<QIQ", 2**63, 0, 0),
        r"a ends at byte 368\d+, the file at \d+: fetch it again",
    ),
    "a tensor that is not there": (
        beginning(1) + ARCHITECTURE + TENSOR + struct.pack("<QIQ", 64, 0, 2**40),
        r"a ends at byte 1099\d+, the file at \d+",
    ),
    "a tensor of nothing": (beginning(1) + ARCHITECTURE + TENSOR + struct.pack("<QIQ", 0, 0, 0), r"the shape \[0\]"),
    "half a block": (
        beginning(1) + ARCHITECTURE + TENSOR + struct.pack("<QIQ", 33, 8, 0),
        r"\[33\], of which Q8_0 cannot",
    ),
    "a type of no numbers": (
        beginning(1) + ARCHITECTURE + TENSOR + struct.pack("<QIQ", 32, 999, 0),
        "999 is not a valid",
    ),
}


@pytest.mark.parametrize("what", DAMAGED)
def test_what_is_damaged_is_refused_before_any_library_reads_it(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, said = DAMAGED[what]
    (tmp_path / "model.gguf").write_bytes(held)
    monkeypatch.setattr("gguf.GGUFReader", lambda *_: pytest.fail("it was opened"))
    with pytest.raises(ModelRefusedError, match=rf"model\.gguf is damaged, or no GGUF file: .*{said}"):
        load(tmp_path / "model.gguf")


def test_a_file_that_ends_early_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "model.gguf", "qwen2")
    held = (tmp_path / "model.gguf").read_bytes()
    for size in (len(held) - 1, len(held) // 2, 1000, 30):
        (tmp_path / "model.gguf").write_bytes(held[:size])
        with pytest.raises(ModelRefusedError, match=r"model\.gguf is damaged, or no GGUF file: .*fetch it again"):
            load(tmp_path / "model.gguf")


def test_one_part_of_several_is_told_what_to_do_with_it(tmp_path: Path) -> None:
    write(tmp_path / "x-00001-of-00003.gguf", "qwen2")
    with pytest.raises(ModelRefusedError, match=r"is one part of several; put them together first \(llama-gguf-split"):
        load(tmp_path / "x-00001-of-00003.gguf")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"quantization": "torchao-int8"},
            r"quantization together with a GGUF file \(model\.gguf\) has not been shown",
        ),
        ({"device_map": "auto"}, r"device_map together with a GGUF file \(model\.gguf\) has not been shown"),
    ],
)
def test_what_was_never_seen_together_is_refused(settings: dict[str, Any], said: str, tmp_path: Path) -> None:
    write(tmp_path / "model.gguf", "qwen2")
    with pytest.raises(InvalidRequestError, match=said):
        load(tmp_path / "model.gguf", **settings)


def test_what_does_not_fit_is_refused_with_both_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers of the weights, and those of one matrix twice while it is made."""
    model = write(tmp_path / "model.gguf", "qwen2", "Q8_0")
    held = tensors_of(model, "qwen2")
    needed = sum(tensor.size for tensor in held.values()) * 4 + 8 * max(tensor.size for tensor in held.values())
    monkeypatch.setattr("transparent_llm_server.models.loading.memory._free_on_host", lambda: needed)
    load(tmp_path / "model.gguf")
    monkeypatch.setattr("transparent_llm_server.models.loading.memory._free_on_host", lambda: needed - 1)
    with pytest.raises(
        TooLargeError, match=rf"needs {needed} bytes of memory of the host to be loaded, {needed - 1} are"
    ):
        load(tmp_path / "model.gguf")


def test_without_its_package_it_is_said_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "model.gguf", "qwen2")
    monkeypatch.setitem(sys.modules, "gguf", None)
    words = r"requires the \[gguf\] extra, and gguf is not installed: run pip install 'PATH\[gguf\]', where PATH is"
    with pytest.raises(InvalidRequestError, match=words):
        load(tmp_path / "model.gguf")


def test_a_tokenizer_that_begins_otherwise_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Transformers is made to overlook the setting; read, it has its effect."""
    from transformers.integrations.gguf import GGUF_TOKENIZER_MAPPING

    write(tmp_path / "model.gguf", "qwen2", begins=True)
    assert load(tmp_path / "model.gguf").encode(["a"])[0][0] == 0
    monkeypatch.delitem(GGUF_TOKENIZER_MAPPING["tokenizer_config"], "ggml.add_bos_token")
    with pytest.raises(ModelRefusedError, match=r"every text begins with token 0, and the tokenizer that transformers"):
        load(tmp_path / "model.gguf")
