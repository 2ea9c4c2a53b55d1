"""Say what the `onnx` package reads from models, some of them written here for the purpose.

    python onnx_values.py DIR [PACKAGE/PATH ...]

Writes models of every data type in every form into DIR, each into a directory of its own, and finds
further ones inside of installed packages.  Prints one JSON object: to the path of each model, its
tensors by name, each a list of type, shape and SHA-256 of its elements, row-major and little-endian.

What tensors are called follows the rules stated in `src/format/onnx.rs`.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import (
    AttributeProto,
    FunctionProto,
    GraphProto,
    ModelProto,
    NodeProto,
    TensorProto,
    helper,
    numpy_helper,
)

Named = Iterator[tuple[str, TensorProto]]

# The name of each data type, and the bits of an element where they do not fill bytes.
TYPES = {
    "FLOAT": ("F32", 0), "UINT8": ("U8", 0), "INT8": ("I8", 0), "UINT16": ("U16", 0),
    "INT16": ("I16", 0), "INT32": ("I32", 0), "INT64": ("I64", 0), "BOOL": ("BOOL", 0),
    "FLOAT16": ("F16", 0), "DOUBLE": ("F64", 0), "UINT32": ("U32", 0), "UINT64": ("U64", 0),
    "COMPLEX64": ("C64", 0), "COMPLEX128": ("C128", 0), "BFLOAT16": ("BF16", 0),
    "FLOAT8E4M3FN": ("F8_E4M3", 0), "FLOAT8E4M3FNUZ": ("F8_E4M3FNUZ", 0),
    "FLOAT8E5M2": ("F8_E5M2", 0), "FLOAT8E5M2FNUZ": ("F8_E5M2FNUZ", 0),
    "FLOAT8E8M0": ("F8_E8M0", 0), "UINT4": ("U4", 4), "INT4": ("I4", 4), "FLOAT4E2M1": ("F4", 4),
    "UINT2": ("U2", 2), "INT2": ("I2", 2), "FLOAT6E2M3": ("F6_E2M3", 6),
    "FLOAT6E3M2": ("F6_E3M2", 6),
}  # fmt: skip

# The extremes of integers; what else a type has is drawn at random.
SPECIAL = {
    "INT8": [-128, -1, 127], "INT16": [-(2**15), -1, 2**15 - 1], "INT32": [-(2**31), -1, 2**31 - 1],
    "INT64": [-(2**63), -1, 2**63 - 1], "UINT8": [255], "UINT16": [2**16 - 1], "UINT32": [2**32 - 1],
    "UINT64": [2**64 - 1],
}  # fmt: skip


def attribute_tensors(attribute: AttributeProto, path: str, owner: str, constant: bool) -> Named:
    """Name the tensors of one attribute."""
    name = f"{path}{owner}.{attribute.name}"
    if attribute.HasField("t"):
        yield (path + owner if constant and attribute.name == "value" else name), attribute.t
    for i, tensor in enumerate(attribute.tensors):
        yield f"{name}.{i}", tensor
    below = f"{path}{owner}/{attribute.name}/"
    if attribute.HasField("g"):
        yield from graph_tensors(attribute.g, below)
    for i, graph in enumerate(attribute.graphs):
        yield from graph_tensors(graph, f"{below}{i}/")


def node_tensors(nodes: Any, path: str) -> Named:
    """Name the tensors of nodes."""
    for i, node in enumerate(nodes):
        owner = next((output for output in node.output if output), f"#{i}")
        for attribute in node.attribute:
            yield from attribute_tensors(attribute, path, owner, node.op_type == "Constant")


def graph_tensors(graph: GraphProto, path: str) -> Named:
    """Name the tensors of a graph."""
    for tensor in graph.initializer:
        yield path + tensor.name, tensor
    yield from node_tensors(graph.node, path)


def function_tensors(function: FunctionProto) -> Named:
    """Name the tensors of a function."""
    path = f"{function.domain}::{function.name}"
    path += f"::{function.overload}/" if function.overload else "/"
    for attribute in function.attribute_proto:
        yield from attribute_tensors(attribute, path, "attribute_proto", constant=False)
    yield from node_tensors(function.node, path)


def model_tensors(model: ModelProto) -> Named:
    """Name the tensors of a model."""
    yield from graph_tensors(model.graph, "")
    for i, training in enumerate(model.training_info):
        yield from graph_tensors(training.initialization, f"training_info.{i}.initialization/")
        yield from graph_tensors(training.algorithm, f"training_info.{i}.algorithm/")
    for function in model.functions:
        yield from function_tensors(function)


def describe(tensor: TensorProto, base: str) -> list[Any]:
    """Give type, shape and digest of a tensor."""
    dtype, bits = TYPES[TensorProto.DataType.Name(tensor.data_type)]
    array = numpy_helper.to_array(tensor, base_dir=base)
    data = np.ascontiguousarray(array).tobytes()
    if bits:
        ones = np.unpackbits(np.frombuffer(data, np.uint8)[:, None], axis=1, bitorder="little")
        data = np.packbits(ones[:, :bits].reshape(-1), bitorder="little").tobytes()
    return [dtype, list(array.shape), hashlib.sha256(data).hexdigest()]


def values(path: Path) -> dict[str, list[Any]]:
    """Describe all tensors of a model but those of strings."""
    model = onnx.load(path, load_external_data=False)
    found: dict[str, list[Any]] = {}
    for name, tensor in model_tensors(model):
        if tensor.data_type != TensorProto.STRING:
            if name in found:
                raise ValueError(f"{path}: two tensors are called {name}")
            found[name] = describe(tensor, str(path.parent))
    return found


def sample(kind: str, shape: list[int], *, raw: bool) -> TensorProto:
    """Make a tensor of one data type."""
    code = TensorProto.DataType.Value(kind)
    dtype = helper.tensor_dtype_to_np_dtype(code)
    random = np.random.default_rng(code)
    count = int(np.prod(shape))
    if kind.startswith("COMPLEX"):
        array = (random.normal(size=count) + 1j * random.normal(size=count)).astype(dtype)
    elif kind == "FLOAT8E8M0":
        array = (2.0 ** random.integers(-20, 20, count)).astype(dtype)
    elif "FLOAT" in kind or kind == "DOUBLE":
        array = random.normal(size=count).astype(dtype)
    else:
        bits = TYPES[kind][1] or 8
        low = -(1 << bits - 1) if kind.startswith("INT") else 0
        high = 2 if kind == "BOOL" else low + (1 << bits)
        array = random.integers(low, high, count).astype(dtype)
        special = np.array(SPECIAL.get(kind, []), dtype)[:count]
        array[: len(special)] = special
    name = f"{kind}.{'raw' if raw else 'typed'}.{'x'.join(map(str, shape))}"
    array = array.reshape(shape)
    if raw:
        tensor = numpy_helper.from_array(array, name)
        assert tensor.HasField("raw_data") and tensor.data_type == code
        return tensor
    return helper.make_tensor(name, code, shape, array.flatten())


def model_of(graph: GraphProto, **more: Any) -> ModelProto:
    """Make a model of a graph."""
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("local", 1)]
    return helper.make_model(graph, producer_name="weightmark", opset_imports=opsets, **more)


def constant(output: str, tensor: TensorProto) -> NodeProto:
    """Make a node that holds a tensor."""
    return helper.make_node("Constant", [], [output], value=tensor)


def initializers(tensors: list[TensorProto]) -> GraphProto:
    """Make a graph of nothing but weights."""
    return helper.make_graph([], "weights", [], [], tensors)


def floats(name: str, count: int = 8) -> TensorProto:
    """Make a small tensor that is like no other."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "little")
    return numpy_helper.from_array(np.random.default_rng(seed).normal(size=count), name)


def nested() -> ModelProto:
    """Make a model of subgraphs, constants, lists of tensors, functions and training."""

    def branch(name: str, below: list[NodeProto]) -> GraphProto:
        nodes = [constant("inner", floats(f"{name}.c")), *below]
        return helper.make_graph(nodes, name, [], [], [floats("weight"), floats("bias")])

    def choice(output: str, below: list[NodeProto]) -> NodeProto:
        sides = {f"{side}_branch": branch(f"{output}{side}", below) for side in ("then", "else")}
        return helper.make_node("If", ["condition"], [output], **sides)

    nodes = [
        constant("c", floats("ignored")),
        constant("", floats("of nothing")),
        helper.make_node("Constant", [], ["scalar"], value_float=1.0),
        helper.make_node("ConstantOfShape", ["c"], ["filled"], value=floats("x", 1)),
        helper.make_node("Odd", [], ["", "second"], many=[floats("a"), floats("b")]),
        helper.make_node("Odd", [], ["third"], graphs=[branch("g", []), branch("h", [])]),
        choice("outer", [choice("middle", [choice("innermost", [])])]),
        helper.make_node("Constant", [], ["word"], value_string="text"),
    ]
    words = helper.make_tensor("words", TensorProto.STRING, [2], [b"a", b"b"])
    model = model_of(helper.make_graph(nodes, "main", [], [], [floats("weight"), words]))
    for overload in ("", "second"):
        body = [constant("k", floats(f"f{overload}")), choice("o", [])]
        function = helper.make_function("local", "f", [], ["k"], body, model.opset_import)
        function.overload = overload
        function.attribute_proto.append(helper.make_attribute("alpha", floats("alpha")))
        model.functions.append(function)
    info = model.training_info.add()
    info.initialization.CopyFrom(initializers([floats("weight")]))
    info.algorithm.CopyFrom(helper.make_graph([constant("c", floats("algorithm"))], "a", [], []))
    helper.set_model_props(model, {"author": "weightmark", "note": "grüße"})
    return model


def write(root: Path) -> list[Path]:
    """Write all models; return their paths."""
    paths: list[Path] = []

    def save(name: str, model: ModelProto, **options: Any) -> None:
        path = root / name / "model.onnx"
        path.parent.mkdir(parents=True)
        onnx.save(model, path, **options)
        paths.append(path)

    shapes = [[4, 6], [], [0], [3, 0, 2], [5]]
    for raw in (True, False):
        packed = [kind for kind, (_, bits) in TYPES.items() if not bits]
        tensors = [sample(kind, shape, raw=raw) for kind in packed for shape in shapes]
        save("raw" if raw else "typed", model_of(initializers(tensors)))
    packed = [kind for kind, (_, bits) in TYPES.items() if bits]
    save("packed", model_of(initializers([sample(kind, [4, 6], raw=True) for kind in packed])))
    save("nested", nested())
    external = {"save_as_external_data": True, "size_threshold": 0, "convert_attribute": True}
    save("external", nested(), location="weights.bin", **external)
    save("scattered", nested(), all_tensors_to_one_file=False, **external)
    return paths


def inside(place: str) -> Path:
    """Find a file of an installed package."""
    package, _, rest = place.partition("/")
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise ValueError(f"package {package} is not installed")
    return Path(spec.origin).parent / rest


def main() -> int:
    """Run the command line."""
    if len(sys.argv) < 2:
        print("usage: onnx_values.py DIR [PACKAGE/PATH ...]", file=sys.stderr)
        return 2
    paths = write(Path(sys.argv[1])) + [inside(place) for place in sys.argv[2:]]
    print(json.dumps({str(path): values(path) for path in paths}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
