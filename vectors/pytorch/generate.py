"""Makes the checkpoints of this directory with PyTorch 1.13, and `expected.json`: what is in them.

Elements are given as the hexadecimal digits of their bytes, row-major and little-endian."""

import collections
import json
import pathlib
import warnings

import torch

warnings.simplefilter("ignore")
torch.manual_seed(7)
here = pathlib.Path(__file__).parent
expected = {}

NAMES = {
    torch.float16: "F16", torch.float32: "F32", torch.float64: "F64", torch.bfloat16: "BF16", torch.bool: "BOOL",
    torch.int8: "I8", torch.int16: "I16", torch.int32: "I32", torch.int64: "I64", torch.uint8: "U8",
    torch.complex64: "C64", torch.complex128: "C128",
}


def elements(tensor):
    tensor = tensor.detach().contiguous()
    if tensor.dtype == torch.bfloat16:
        tensor = tensor.view(torch.int16)
    return tensor.numpy().tobytes().hex()


def leaves(value, name=""):
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, (list, tuple)):
        items = enumerate(value)
    else:
        yield name, value
        return
    for key, item in items:
        yield from leaves(item, f"{name}.{key}" if name else str(key))


def save(name, value, **options):
    torch.save(value, here / name, **options)
    tensors = {}
    for path, leaf in leaves(value):
        if isinstance(leaf, torch.Tensor):
            tensors[path or "tensor"] = [NAMES[leaf.dtype], list(leaf.shape), elements(leaf)]
    expected[name] = tensors


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = torch.nn.Embedding(6, 4)
        self.norm = torch.nn.BatchNorm1d(4)
        self.head = torch.nn.Linear(4, 6, bias=False)
        self.head.weight = self.embed.weight  # tied

    def forward(self, x):
        return self.head(self.norm(self.embed(x)))


net = Net()
optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
net(torch.tensor([0, 1, 2])).sum().backward()
optimizer.step()

save("state_dict.pt", net.state_dict())
save("protocol4.pt", net.state_dict(), pickle_protocol=4)
save("checkpoint.pt", {
    "model": net.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3, "loss": 0.25, "name": "tiny ü",
    "best": None, "resumed": True, "steps": 1 << 40, "below": -5,
    "sizes": [torch.Size([1, 2]), (3,)], "dtype": torch.bfloat16, "device": torch.device("cpu"),
    "again": net.state_dict(),
})
base = torch.arange(60, dtype=torch.float32).reshape(3, 4, 5)
save("views.pt", collections.OrderedDict([
    ("transposed", base.permute(2, 0, 1)), ("slice", base[1:, :, 1:4:2]), ("row", base[2, 3]), ("whole", base),
    ("stepped", torch.arange(10)[1::3]), ("empty", torch.zeros(0, 3)), ("scalar", torch.tensor(2.5)),
    ("expanded by one", torch.arange(4).expand(1, 4)), ("parameter", torch.nn.Parameter(torch.ones(2))),
]))
save("types.pt", {
    str(dtype).split(".")[1]: (torch.randn(3, 2) * 5).to(dtype) if not dtype.is_complex else torch.randn(3, 2, dtype=dtype)
    for dtype in NAMES
})
save("bare.pt", torch.arange(3, dtype=torch.int16))
save("list.pt", [torch.ones(2), (torch.zeros(1), {"deep": torch.ones(1), 7: torch.ones(3)})])
save("legacy.pt", {"a": torch.ones(1)}, _use_new_zipfile_serialization=False)
# refused
save("expanded.pt", {"a": torch.ones(1).expand(3)})
save("twins.pt", {"a": {"b": torch.ones(1)}, "a.b": torch.ones(1)})
save("namespace.pt", {"args": collections.Counter(), "a": torch.ones(1)})
torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), str(here / "program.pt"))
torch.save(net, here / "module.pt")

(here / "expected.json").write_text(json.dumps(expected, indent=0) + "\n")
