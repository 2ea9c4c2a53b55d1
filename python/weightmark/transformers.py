"""Models of ``transformers`` from encrypted and signed directories: nothing decrypted touches a disk.

>>> from transformers import AutoModel
>>> from weightmark.transformers import from_pretrained, tokenizer
>>> keys = {"identity": "serving.key", "policy": "release.pem.pub"}
>>> model, tokens = from_pretrained(AutoModel, "out/", **keys), tokenizer("out/", **keys)

Code that a model brings along (``auto_map``) is never run.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Unpack

import weightmark

from ._errors import Misuse
from ._opening import split

if TYPE_CHECKING:
    import torch

    from ._arguments import Path
    from ._opening import Opening


def load_state_dict(path: Path, **opening: Unpack[Opening]) -> dict[str, torch.Tensor]:
    """All weights of a model, as ``from_pretrained(None, config=.., state_dict=..)`` takes them."""
    with weightmark.open(path, **opening) as model:
        return model.load(framework="torch")


def from_pretrained(model_class: Any, path: Path, *, config: Any = None, **options: Any) -> Any:
    """In the place of ``model_class.from_pretrained(path)``.

    Args:
        model_class: Of one architecture (``BertModel``), or one that finds it (``AutoModelForCausalLM``).
        path: The directory.
        config: Its configuration, if it has no ``config.json``.
        options: As for :func:`weightmark.open`; the rest as for ``from_pretrained``.
    """
    opening, rest = split(options)
    with weightmark.open(path, **opening) as model:
        config = _config(model) if config is None else config
        state = model.load(framework="torch")
        loaded = _concrete(model_class, config).from_pretrained(None, config=config, state_dict=state, **rest)
        if "generation_config.json" in model.files and loaded.can_generate():
            from transformers import GenerationConfig

            loaded.generation_config = GenerationConfig.from_dict(_json(model, "generation_config.json"))
    return loaded


def tokenizer(path: Path, **opening: Unpack[Opening]) -> Any:
    """The fast tokenizer of a model, from its ``tokenizer.json``."""
    import transformers
    from tokenizers import AddedToken, Tokenizer

    with weightmark.open(path, **opening) as model:
        fast = Tokenizer.from_str(model.read("tokenizer.json").decode())
        options = _json(model, "tokenizer_config.json") if "tokenizer_config.json" in model.files else {}
        if "chat_template.jinja" in model.files:
            options["chat_template"] = model.read("chat_template.jinja").decode()
    for name in ("added_tokens_decoder", "auto_map"):  # tokens that tokenizer.json has; code
        options.pop(name, None)
    for name, value in options.items():
        if isinstance(value, dict) and "content" in value:
            options[name] = AddedToken(**{key: value[key] for key in value if key != "__type"})
    named = str(options.pop("tokenizer_class", "")).removesuffix("Fast")
    for candidate in (getattr(transformers, named + "Fast", None), getattr(transformers, named, None)):
        if isinstance(candidate, type) and issubclass(candidate, transformers.PreTrainedTokenizerFast):
            return candidate(tokenizer_object=fast, **options)
    return transformers.PreTrainedTokenizerFast(tokenizer_object=fast, **options)


def _json(model: weightmark.Model, path: str) -> dict[str, Any]:
    value = json.loads(model.read(path))
    if not isinstance(value, dict):
        raise Misuse(f"{path} of {model.name} is not an object")
    return value


def _config(model: weightmark.Model) -> Any:
    from transformers import AutoConfig

    values = _json(model, "config.json")
    kind = values.pop("model_type", None)
    if kind is None:
        raise Misuse(f"config.json of {model.name} has no model_type: pass config")
    return AutoConfig.for_model(kind, **values)


def _concrete(model_class: Any, config: Any) -> Any:
    """The architecture behind an ``AutoModelFor..``, which would look for files."""
    mapping = getattr(model_class, "_model_mapping", None)
    if mapping is None:
        return model_class
    found = mapping[type(config)]
    if not isinstance(found, (tuple, list)):
        return found
    return next((one for one in found if one.__name__ in (config.architectures or ())), found[0])
