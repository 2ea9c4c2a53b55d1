"""Attacks on PyTorch's files: an archive of a pickle (Lib/pickletools.py) and the storages that it names."""

from __future__ import annotations

import pickle
import struct

from archive import Member, archive
from case import READS, Case, Sparse

FORMAT, EXTENSION = "pytorch", ".pt"

WEIGHTS = struct.pack("<4f", 1, 2, 3, 4)
PROTO, STOP, MARK = b"\x80\2", b".", b"("


def text(value: str) -> bytes:
    """Push a string."""
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def number(value: int) -> bytes:
    """Push a number in the shortest way."""
    if 0 <= value < 256:
        return b"K" + bytes([value])
    if -(2**31) <= value < 2**31:
        return b"J" + struct.pack("<i", value)
    raw = value.to_bytes((value.bit_length() // 8) + 1, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


def tuple_(*items: bytes) -> bytes:
    """Push a tuple."""
    return MARK + b"".join(items) + b"t"


def load(module: str, name: str) -> bytes:
    """Push what a module calls by the name."""
    return b"c" + f"{module}\n{name}\n".encode()


def call(module: str, name: str, *arguments: bytes) -> bytes:
    """Push the result of a call."""
    return load(module, name) + tuple_(*arguments) + b"R"


ORDERED = call("collections", "OrderedDict")
FLOATS = load("torch", "FloatStorage")


def storage(
    kind: bytes = FLOATS,
    key: bytes = text("0"),
    count: bytes = number(4),
    where: bytes = text("cpu"),
    tag: bytes = text("storage"),
) -> bytes:
    """Push a storage."""
    return tuple_(tag, kind, key, where, count) + b"Q"


def tensor(
    place: bytes = storage(),
    offset: int = 0,
    shape=(2, 2),
    strides=(2, 1),
    grad: bytes = b"\x89",
    hooks: bytes = ORDERED,
    more: bytes = b"",
) -> bytes:
    """Push a tensor."""
    dims, steps = (tuple_(*map(number, numbers)) for numbers in (shape, strides))
    return call("torch._utils", "_rebuild_tensor_v2", place, number(offset), dims, steps, grad, hooks + more)


def state(tensors: dict[str, bytes]) -> bytes:
    """Write the pickle of a dictionary."""
    return PROTO + b"}" + MARK + b"".join(text(name) + value for name, value in tensors.items()) + b"u" + STOP


def file(
    data: bytes,
    storages: dict[str, bytes] | None = None,
    more: dict[str, bytes] | None = None,
    root: str = "archive",
) -> bytes:
    """Archive a pickle and its storages."""
    members = [Member(f"{root}/data.pkl", data)]
    storages = {"0": WEIGHTS} if storages is None else storages
    members += [Member(f"{root}/data/{key}", value) for key, value in storages.items()]
    members += [Member(f"{root}/{name}", value) for name, value in (more or {}).items()]
    return archive([*members, Member(f"{root}/version", b"3\n")])


def one(value: bytes, **more) -> bytes:
    """Archive a dictionary of one tensor called a."""
    return file(state({"a": value}), **more)


def beside(value: bytes) -> bytes:
    """Archive a dictionary of a good tensor, and another value."""
    return file(state({"a": tensor(), "b": value}))


def instead(body: bytes) -> bytes:
    """Archive a pickle of this body; a good storage lies beside."""
    return file(PROTO + body + STOP)


def held(name: str = "a", what: str = "F32 [2, 2]", data: bytes = WEIGHTS) -> dict[str, str]:
    """Say what a file of one tensor holds."""
    return {name: f"{what} {data.hex()}"}


GOOD = tensor()
HELD = held()
CODE, ODD_CODE = "executable", "executable malformed-header"
ID = text("id")

GLOBALS = [
    Case(f"global-{name}", what, CODE, beside(value))
    for name, what, value in [
        ("os-system", "os.system", call("os", "system", ID)),
        ("posix-system", "os.system by the name that pickle writes", call("posix", "system", ID)),
        ("eval", "eval", call("builtins", "eval", text("1"))),
        ("exec", "exec", call("builtins", "exec", text("pass"))),
        ("eval-python-2", "eval by its name in Python 2, which pickle translates",
            call("__builtin__", "eval", text("1"))),
        ("getattr", "getattr, from which everything follows",
            call("builtins", "getattr", load("os", "path"), text("x"))),
        ("import", "__import__", call("builtins", "__import__", text("os"))),
        ("compile", "compile", call("builtins", "compile", text("1"), text(""), text("eval"))),
        ("print", "something harmless", call("builtins", "print", text("x"))),
        ("set", "a set, which is plain but not needed", call("builtins", "set", b"]")),
        ("unused", "os.system, loaded and never called", load("os", "system")),
        ("popped", "os.system, called and thrown away", call("os", "system", ID) + b"0N"),
        ("pip-main", "pip.main (CVE-2025-1716)", call("pip", "main", b"]")),
        ("runpy", "runpy.run_path", call("runpy", "run_path", text("x"))),
        ("partial", "functools.partial", call("functools", "partial", load("os", "system"))),
        ("reduce", "functools.reduce", call("functools", "reduce", load("os", "system"), b"]")),
        ("attrgetter", "operator.attrgetter", call("operator", "attrgetter", text("system"))),
        ("methodcaller", "operator.methodcaller", call("operator", "methodcaller", text("system"))),
        ("submodule", "a module of a module that scanners list (CVE-2025-10157)",
            call("asyncio.unix_events", "_UnixSubprocessTransport._start", b"N")),
        ("bdb", "bdb.Bdb.run", call("bdb", "Bdb", b"N")),
        ("doctest", "doctest.debug_script", call("doctest", "debug_script", text("x"))),
        ("timeit", "timeit.timeit", call("timeit", "timeit", text("x"))),
        ("file-handler", "logging.FileHandler, which creates a file (CVE-2026-56304)",
            call("logging", "FileHandler", text("x"))),
        ("main", "a class of the script that reads", call("__main__", "Model")),
        ("copyreg", "copyreg._reconstructor", call("copyreg", "_reconstructor", load("__main__", "Model"),
            load("builtins", "object"), b"N")),
        ("dotted", "a name with dots: torch.serialization has os", load("torch.serialization", "os.system")),
        ("dotted-listed", "a listed class, and on from it by dots", load("collections", "OrderedDict.__class__")),
        ("dotted-module", "a listed name split at another dot", load("torch", "_utils._rebuild_tensor_v2")),
        ("look-alike", "a module with a Cyrillic letter", call("t\u043erch._utils", "_rebuild_tensor_v2")),
        ("full-width", "a name in full-width letters, which Python's parser folds",
            load("collections", "\uff2frderedDict")),
        ("case", "a listed name in other case", load("collections", "ordereddict")),
        ("blank", "a listed name with a blank behind", load("collections", "OrderedDict ")),
        ("carriage-return", "a listed name with a carriage return behind", load("collections", "OrderedDict\r")),
        ("nul", "a listed name with a NUL behind", load("collections", "OrderedDict\0")),
        ("empty", "no module and no name", load("", "")),
        ("torch-load", "torch.load of another file", call("torch", "load", text("x"))),
        ("torch-hub", "torch.hub.load of a repository", call("torch.hub", "load", text("x"), text("y"))),
        ("torch-jit", "torch.jit.load", call("torch.jit", "load", text("x"))),
        ("torch-jit-unpickler", "TorchScript's own names", call("torch.jit._pickle", "build_intlist", b"]")),
        ("torch-storage", "torch.storage._load_from_bytes, which unpickles",
            call("torch.storage", "_load_from_bytes", text("x"))),
        ("torch-save", "torch.save, which writes", call("torch", "save", b"N", text("x"))),
        ("torch-nn", "a layer: a model rather than its weights", load("torch.nn.modules.linear", "Linear") + b")\x81"),
        ("torch-class", "a class of torch that nobody lists", load("torch", "FloatTensor")),
        ("numpy-load", "numpy.load", call("numpy", "load", text("x"))),
        ("numpy-runstring", "numpy.testing's runstring", call("numpy.testing._private.utils", "runstring", text("x"),
            b"}")),
        ("numpy-scalar", "a number of NumPy's, built by a call",
         call("numpy.core.multiarray", "scalar", load("numpy", "dtype"), ID)),
        ("codecs", "_codecs.encode, by which pickle writes bytes", call("_codecs", "encode", ID, text("latin1"))),
        ("torch-sparse", "a sparse tensor",
         call("torch._utils", "_rebuild_sparse_tensor", load("torch", "sparse_coo"), b")")),
        ("numpy-object", "an array of objects", call("numpy.core.multiarray", "_reconstruct", load("numpy", "ndarray"),
            tuple_(number(0)), b"C\1b")),
    ]
]

OPCODES = [
    Case(f"opcode-{name}", what, words, instead(body))
    for name, what, words, body in [
        ("inst", "INST, which loads and calls in one", CODE, b"(" + ID + b"ios\nsystem\n"),
        ("inst-listed", "INST of a listed name", CODE, b"(icollections\nOrderedDict\n"),
        ("obj", "OBJ", CODE, b"(" + load("os", "system") + ID + b"o"),
        ("obj-listed", "OBJ of a listed class", CODE, b"(" + load("collections", "OrderedDict") + b"o"),
        ("newobj", "NEWOBJ", CODE, load("builtins", "object") + b")\x81"),
        ("newobj-listed", "NEWOBJ of a listed class", CODE, load("collections", "OrderedDict") + b")\x81"),
        ("newobj-ex", "NEWOBJ_EX", CODE, load("builtins", "object") + b")}\x92"),
        ("stack-global", "STACK_GLOBAL", CODE, text("os") + text("system") + b"\x93" + tuple_(ID) + b"R"),
        ("stack-global-memo", "STACK_GLOBAL of names from the memo", CODE,
            text("system") + b"q\0" + text("os") + b"q\1" + b"00h\1h\0\x93" + tuple_(ID) + b"R"),
        ("stack-global-result", "STACK_GLOBAL of computed names", CODE, ORDERED + ORDERED + b"\x93"),
        ("ext1", "EXT1: a class by its number", CODE, b"\x82\1"),
        ("ext2", "EXT2", CODE, b"\x83\1\0"),
        ("ext4", "EXT4", CODE, b"\x84\1\0\0\0"),
        ("ext4-negative", "EXT4 of a negative number", CODE, b"\x84\xff\xff\xff\xff"),
        ("persid", "PERSID: a storage by a line of text", CODE, b"P0\n"),
        ("build-dict", "BUILD on a dictionary", CODE, b"}}b"),
        ("build-none", "BUILD on nothing", CODE, b"N}b"),
        ("build-tensor", "BUILD on a tensor: attributes such as __class__", CODE,
            GOOD + b"}" + text("__class__") + b"Nsb"),
        ("build-global", "BUILD on a function", CODE, load("collections", "OrderedDict") + b"}b"),
        ("reduce-text", "REDUCE of a text", CODE, text("os") + b")R"),
        ("reduce-storage", "REDUCE of a storage", CODE, storage() + b")R"),
        ("reduce-class", "REDUCE of a storage class", CODE, FLOATS + tuple_(number(4)) + b"R"),
        ("reduce-list", "REDUCE with a list of arguments", CODE, load("collections", "OrderedDict") + b"]R"),
        ("reduce-nothing", "REDUCE of nothing", ODD_CODE, b"R"),
        ("dup", "DUP, which pickle never writes", ODD_CODE, b"N20"),
        ("build-ordered-code", "BUILD of an OrderedDict by a function", CODE, ORDERED + load("os", "system") + b"b"),
        ("buffer", "NEXT_BUFFER: data from outside", CODE, b"\x97"),
        ("buffer-readonly", "READONLY_BUFFER", CODE, b"N\x98"),
        ("unknown", "a byte that is no opcode", ODD_CODE, b"\xff"),
        ("unknown-nul", "a NUL as an opcode", ODD_CODE, b"\0"),
        ("persid-number", "a storage by a number", ODD_CODE, number(0) + b"Q"),
        ("persid-text", "a storage by a text", ODD_CODE, text("0") + b"Q"),
        ("persid-empty", "a storage by an empty tuple", ODD_CODE, b")Q"),
        ("persid-nothing", "a storage by nothing", ODD_CODE, b"Q"),
        ("pop-empty", "POP of an empty stack", ODD_CODE, b"0N"),
        ("pop-mark-none", "POP_MARK without a mark", ODD_CODE, b"1N"),
        ("tuple-no-mark", "TUPLE without a mark", ODD_CODE, b"t"),
        ("tuple3-short", "TUPLE3 of two", ODD_CODE, b"NN\x87"),
        ("setitem-list", "SETITEM on a list", ODD_CODE, b"]" + number(0) + b"Ns"),
        ("setitems-odd", "a key without value", ODD_CODE, b"}(" + text("a") + b"u"),
        ("setitems-tuple", "SETITEMS on a tuple", ODD_CODE, b")(" + text("a") + b"Nu"),
        ("setitem-key", "a dictionary for a key", ODD_CODE, b"}}Ns"),
        ("append-dict", "APPEND to a dictionary", ODD_CODE, b"}Na"),
        ("appends-text", "APPENDS to a text", ODD_CODE, text("a") + b"(Ne"),
        ("mark-left", "a mark that nobody takes", ODD_CODE, b"}(N"),
        ("two-left", "two values at the end", ODD_CODE, GOOD + GOOD),
        ("stack-empty", "no value at the end", ODD_CODE, b""),
        ("proto-late", "PROTO in the middle", ODD_CODE, b"\x80\2}"),
        ("get-undefined", "GET of what was never put", ODD_CODE, b"h\7"),
        ("get-text", "GET by its number in text", ODD_CODE, b"Nq\0" + b"0g0\n"),
        ("put-text", "PUT by its number in text", ODD_CODE, b"Np0\n"),
        ("put-text-negative", "PUT under a negative number", ODD_CODE, b"Np-1\n"),
        ("put-empty", "PUT of nothing", ODD_CODE, b"q\0N"),
        ("put-2-32", "PUT under 2^32 - 1: a table of 32 GB in C", ODD_CODE, b"Nr\xff\xff\xff\xff" + b"0h\7"),
        ("memo-cycle", "a list that holds itself", ODD_CODE, b"]q\0h\0a"),
        ("memo-cycle-dict", "a dictionary that holds itself", ODD_CODE, b"}q\0" + text("a") + b"h\0s"),
        ("text-2-32", "a text of 4 GB", "executable malformed-header truncated", b"X\xff\xff\xff\xffa"),
        ("text-2-64", "a text of 2^64 - 1 bytes", "executable malformed-header truncated",
            b"\x8d" + b"\xff" * 8 + b"a"),
        ("text-not-utf-8", "a text that is not UTF-8", ODD_CODE, b"X\1\0\0\0\xff"),
        ("bytes-2-64", "bytes of 2^64 - 1", "executable malformed-header truncated", b"\x8e" + b"\xff" * 8 + b"a"),
        ("bytearray", "a byte array", ODD_CODE, b"\x96" + bytes(8)),
        ("long4-2-31", "a number of 2 GB", "executable malformed-header truncated", b"\x8b\xff\xff\xff\x7f"),
        ("long4-negative", "a number of -1 bytes", "executable malformed-header truncated", b"\x8b\xff\xff\xff\xff"),
        ("long-text-digits", "a number of 100,000 digits: quadratic in Python", ODD_CODE,
            b"L" + b"9" * 100_000 + b"L\n"),
        ("int-text", "a number in text", ODD_CODE, b"I1\n"),
        ("int-text-bool", "a truth value in text", ODD_CODE, b"I01\n"),
        ("float-text", "a float in text", ODD_CODE, b"F1.0\n"),
        ("string-text", "a string in quotes", ODD_CODE, b"S'id'\n"),
        ("string-escape", "a string with an escape", ODD_CODE, b"S'\\x69d'\n"),
        ("unicode-text", "a text in a line", ODD_CODE, b"Vid\n"),
        ("unicode-escape", "a text in a line with an escape", ODD_CODE, b"V\\u0069d\n"),
        ("line-endless", "a line that never ends", "executable malformed-header truncated", b"cos"),
        ("frame-long", "a frame longer than the file", "executable malformed-header truncated",
            b"\x95" + b"\xff" * 8 + b"N"),
        ("frame-short", "a frame that ends within an opcode", ODD_CODE, b"\x95" + struct.pack("<Q", 1) + text("abc")),
        ("frozenset", "a frozen set", ODD_CODE, b"(\x91"),
    ]
]


def doubled(first: bytes, times: int) -> bytes:
    """Push lists, each of which holds the one before twice, by the memo."""
    return first + b"q\0" + b"".join(b"0](h%ch%ceq%c" % (i, i, i + 1) for i in range(times))


DEEP = 20_000

STREAMS = [
    Case("stop-missing", "a pickle without end", "executable malformed-header truncated",
         file(state({"a": GOOD})[:-1])),
    Case("stop-twice", "a byte behind the pickle", "executable malformed-header trailing-bytes",
         file(state({"a": GOOD}) + b".")),
    Case("two-pickles", "another pickle behind the first", "executable malformed-header trailing-bytes",
         file(state({"a": GOOD}) + PROTO + call("os", "system", ID) + b".")),
    Case("stop-early", "the end, and code behind it", "executable malformed-header trailing-bytes",
         file(PROTO + b"N." + call("os", "system", ID) + b".")),
    Case("pickle-empty", "an empty pickle", "executable malformed-header truncated", file(b"")),
    Case("proto-none", "no protocol", ODD_CODE, file(state({"a": GOOD})[2:])),
    Case("proto-0", "protocol 0", ODD_CODE + " unsupported", file(b"\x80\0" + state({"a": GOOD})[2:])),
    Case("proto-6", "a protocol to come", ODD_CODE + " unsupported", file(b"\x80\6" + state({"a": GOOD})[2:])),
    Case("lists-deep", f"lists {DEEP:,} deep: whoever frees them overflows its stack", ODD_CODE,
         instead(b"]" * DEEP + b"a" * (DEEP - 1))),
    Case("tuples-deep", f"tuples {DEEP:,} deep", ODD_CODE, instead(b"N" + b"\x85" * DEEP)),
    Case("dictionaries-deep", f"dictionaries {DEEP:,} deep", ODD_CODE,
         instead((b"}" + text("a")) * DEEP + b"N" + b"s" * DEEP)),
    Case("marks-many", f"{DEEP:,} marks", ODD_CODE, instead(b"(" * DEEP)),
    Case("billion-laughs", "2^200 elements by memo", ODD_CODE, instead(doubled(b"]", 200))),
    Case("billion-tuples", "2^200 elements in tuples of the memo", ODD_CODE,
         instead(b")q\0" + b"".join(b"0h%ch%c\x86q%c" % (i, i, i + 1) for i in range(200)))),
    Case("billion-tensors", "2^30 tensors by memo: each list holds the one before twice", ODD_CODE,
         instead(doubled(GOOD, 30))),
]

TENSORS = [
    Case(f"tensor-{name}", what, words, one(value))
    for name, what, words, value in [
        ("offset", "an offset beyond the storage", "span", tensor(offset=1)),
        ("offset-negative", "a negative offset", "span executable malformed-header", tensor(offset=-1)),
        ("offset-2-63", "an offset that wraps", "span executable malformed-header", tensor(offset=2**63)),
        ("offset-2-62", "an offset whose bytes wrap", "span", tensor(offset=2**62)),
        ("shape-long", "a shape beyond the storage", "span", tensor(shape=(2, 3), strides=(3, 1))),
        ("shape-negative", "a negative dimension", "span executable malformed-header", tensor(shape=(-2, -2))),
        ("shape-overflow", "a product that wraps", "span", tensor(shape=(2**32, 2**32))),
        ("shape-2-64", "a dimension of 2^64", "span executable malformed-header", tensor(shape=(2**64,), strides=(1,))),
        ("shape-65", "65 dimensions", "span malformed-header", tensor(shape=(1,) * 65, strides=(1,) * 65)),
        ("strides-beyond", "strides that lead beyond the storage", "span", tensor(strides=(3, 1))),
        ("strides-overflow", "strides that wrap", "span", tensor(strides=(2**62, 2**62))),
        ("strides-negative", "a negative stride", "span executable malformed-header", tensor(strides=(-2, 1))),
        ("strides-zero", "2^40 elements in one place", "span", tensor(shape=(2**40,), strides=(0,))),
        ("strides-overlap", "elements that lie upon each other", "span unsupported",
            tensor(shape=(2, 3), strides=(1, 1))),
        ("strides-few", "fewer strides than dimensions", "span executable malformed-header", tensor(strides=(1,))),
        ("strides-many", "more strides than dimensions", "span executable malformed-header", tensor(strides=(4, 2, 1))),
        ("arguments-few", "a tensor without arguments", ODD_CODE, call("torch._utils", "_rebuild_tensor_v2")),
        ("arguments-many", "a tensor of too many arguments", ODD_CODE, tensor(more=b"NNN")),
        ("arguments-list", "a list for the shape", ODD_CODE,
            call("torch._utils", "_rebuild_tensor_v2", storage(), number(0), b"]", b")", b"\x89", ORDERED)),
        ("arguments-text", "a text for the offset", ODD_CODE,
            call("torch._utils", "_rebuild_tensor_v2", storage(), text("0"), tuple_(number(4)), tuple_(number(1)),
            b"\x89", ORDERED)),
        ("arguments-float", "a float in the shape", ODD_CODE,
            call("torch._utils", "_rebuild_tensor_v2", storage(), number(0), tuple_(b"G@\x10" + bytes(6)),
            tuple_(number(1)), b"\x89", ORDERED)),
        ("arguments-bool", "True in the shape", ODD_CODE, call("torch._utils", "_rebuild_tensor_v2", storage(),
            number(0), tuple_(b"\x88"), tuple_(number(1)), b"\x89", ORDERED)),
        ("arguments-tensor", "a tensor for the storage", ODD_CODE, tensor(place=GOOD)),
        ("arguments-none", "nothing for the storage", ODD_CODE, tensor(place=b"N")),
        ("hooks", "a function for the hooks", ODD_CODE, tensor(hooks=load("os", "system"))),
        ("grad", "a number for a truth value", ODD_CODE, tensor(grad=number(7))),
        ("storage-tag", "a storage by another tag", ODD_CODE, tensor(storage(tag=text("module")))),
        ("storage-kind-text", "a text for the type", ODD_CODE, tensor(storage(kind=text("FloatStorage")))),
        ("storage-kind-code", "a function for the type", CODE, tensor(storage(kind=load("os", "system")))),
        ("storage-kind-unknown", "a type that torch does not have", "executable unsupported malformed-header",
            tensor(storage(kind=load("torch", "FooStorage")))),
        ("storage-key-number", "a number for the key", ODD_CODE, tensor(storage(key=number(0)))),
        ("storage-key-path", "a key that leads outside", "span archive executable malformed-header",
            tensor(storage(key=text("../data/0")))),
        ("storage-key-absolute", "an absolute path for a key", "span archive executable malformed-header",
            tensor(storage(key=text("/etc/passwd")))),
        ("storage-key-pickle", "the pickle itself as weights", "span archive executable malformed-header",
            tensor(storage(key=text("../data.pkl")))),
        ("storage-key-nul", "a key with a NUL", "span archive executable malformed-header",
            tensor(storage(key=text("0\0")))),
        ("storage-key-empty", "an empty key", "span archive executable malformed-header",
            tensor(storage(key=text("")))),
        ("storage-missing", "a storage that is not there", "span archive malformed-header truncated",
            tensor(storage(key=text("1")))),
        ("storage-count", "more elements than the storage has", "span archive malformed-header truncated",
            tensor(storage(count=number(5)))),
        ("storage-count-few", "fewer elements than the storage has", "span archive malformed-header truncated",
            tensor(storage(count=number(3)), shape=(3,), strides=(1,))),
        ("storage-count-negative", "-4 elements", "span archive executable malformed-header truncated",
            tensor(storage(count=number(-4)))),
        ("storage-count-2-62", "a count whose bytes wrap", "span archive executable malformed-header truncated",
            tensor(storage(count=number(2**62)))),
        ("storage-count-bool", "True for the count", ODD_CODE, tensor(storage(count=b"\x88"))),
        ("storage-double", "the storage as numbers of twice the width", "span archive malformed-header truncated",
            tensor(storage(kind=load("torch", "DoubleStorage")))),
    ]
] + [
    Case("storage-two-types", "one storage of two types", "span archive executable malformed-header",
         file(state({"a": GOOD, "b": tensor(storage(kind=load("torch", "IntStorage")))}))),
    Case("storage-two-counts", "one storage of two lengths", "span archive executable malformed-header truncated",
         file(state({"a": GOOD, "b": tensor(storage(count=number(2)), shape=(2,), strides=(1,))}))),
    Case("name-twice", "one name twice in the dictionary: the last counts in Python",
         "duplicate malformed-header executable",
         file(PROTO + b"}(" + text("a") + GOOD + text("a") + GOOD + b"u.")),
    Case("name-control", "an escape in a name", "span", file(state({"a\x1b[2J": GOOD}))),
    Case("name-empty", "a tensor without name", "span", file(state({"": GOOD}))),
    Case("name-twice-nested", "a nested dictionary that gives a name that there is", "duplicate",
         file(PROTO + b"}(" + text("a.b") + GOOD + text("a") + b"}" + text("b") + GOOD + b"su.")),
    Case("name-twice-number", "the number 1 and the text 1 as names", "duplicate malformed-header executable",
         file(PROTO + b"}(" + number(1) + GOOD + text("1") + GOOD + b"u.")),
    Case("name-twice-true", "the number 1 and True: one key in Python", "duplicate malformed-header executable",
         file(PROTO + b"}(" + number(1) + GOOD + b"\x88" + GOOD + b"u.")),
    Case("name-twice-list", "a place in a list, and its name as a key", "duplicate malformed-header executable",
         file(PROTO + b"}(" + text("a.0") + GOOD + text("a") + b"](" + GOOD + b"eu.")),
    Case("ordered-state", "attributes of an OrderedDict that are its methods", ODD_CODE,
         instead(ORDERED + b"}" + text("items") + load("os", "system") + b"sb")),
    Case("ordered-state-tuple", "the state of an OrderedDict as two dictionaries", ODD_CODE,
         instead(ORDERED + b"}}\x86b")),
    Case("ordered-arguments-code", "an OrderedDict of what a call gives", CODE,
         instead(call("collections", "OrderedDict", call("os", "system", ID)))),
    Case("parameter-state", "a parameter with a state of its own", ODD_CODE + " unsupported",
         one(call("torch._utils", "_rebuild_parameter_with_state", GOOD, b"\x88", ORDERED,
         b"}" + text("__class__") + b"Ns"))),
    Case("parameter-of-none", "a parameter of nothing", ODD_CODE,
         one(call("torch._utils", "_rebuild_parameter", b"N", b"\x88", ORDERED))),
    Case("tensor-type", "a tensor of another class", ODD_CODE + " unsupported",
         one(call("torch._tensor", "_rebuild_from_type_v2", load("torch._utils", "_rebuild_tensor_v2"),
         load("__main__", "T"), b")", b"}"))),
]

FILES = [
    Case("bare-pickle.pkl", "a pickle and nothing around it", "executable", PROTO + call("posix", "system", ID) + STOP),
    Case("bare-pickle-4.pkl", "the same in protocol 4", "executable", pickle.dumps({"a": 1}, protocol=4)),
    Case("bare-pickle-named.bin", "a pickle named like weights: scanners go by the name (CVE-2025-1889)", "executable",
         PROTO + call("posix", "system", ID) + STOP),
    Case("torchscript", "a model with code", "executable", file(state({}),
         more={"constants.pkl": PROTO + b")."} | {"code/__torch__.py": b"class A: pass\n"})),
    Case("torchscript-constants", "a model with a pickle of constants", "executable archive",
         file(state({"a": GOOD}), more={"constants.pkl": PROTO + b")."})),
    Case("package", "a package of torch.package: code by definition", "executable unsupported",
         archive([Member("m/.data/extern_modules", b""), Member("m/model/model.pkl", state({})),
         Member("m/a.py", b"")])),
    Case("pickle-other-name", "a second pickle under another name", "executable archive unsupported",
         file(state({"a": GOOD}), more={"evil.pkl": PROTO + call("os", "system", ID) + STOP})),
    Case("pickle-as-text", "a second pickle called .txt (CVE-2025-1889)", "executable archive unsupported",
         file(state({"a": GOOD}), more={"config.txt": PROTO + call("os", "system", ID) + STOP})),
    Case("pickle-two-roots", "two models in one archive", "executable archive",
         archive([Member("a/data.pkl", state({})), Member("b/data.pkl", PROTO + call("os", "system", ID) + STOP)])),
    Case("storage-other-root", "a storage of another model", "archive span",
         archive([Member("a/data.pkl", state({"a": GOOD})), Member("b/data/0", WEIGHTS)])),
    Case("pickle-missing", "an archive without pickle", "archive unknown executable",
         archive([Member("archive/data/0", WEIGHTS)])),
    Case("pickle-at-top", "the pickle outside of a directory", "archive unknown executable",
         archive([Member("data.pkl", state({"a": GOOD})), Member("data/0", WEIGHTS)])),
    Case("pickle-is-directory", "a directory called data.pkl", "archive unknown executable",
         archive([Member("archive/data.pkl/", b""), Member("archive/data/0", WEIGHTS)])),
    Case("storage-unnamed", "a storage that no tensor names", "archive executable reads",
         file(state({"a": GOOD}), {"0": WEIGHTS, "1": b"hidden weights.."}), HELD),
    Case("big-endian", "a model of the other byte order", "unsupported",
         file(state({"a": GOOD}), more={"byteorder": b"big"})),
    Case("byte-order-unknown", "a byte order that is none", "unsupported archive malformed-header",
         file(state({"a": GOOD}), more={"byteorder": b"middle"})),
    Case("code-as-byte-order", "code called .data/serialization_id", "archive executable malformed-header unsupported",
         file(state({"a": GOOD}), more={".data/serialization_id": PROTO + call("os", "system", ID) + STOP})),
    Case("jar", "an archive of classes", "archive unknown executable",
         archive([Member("META-INF/MANIFEST.MF", b"Main-Class: A\n"), Member("A.class", b"\xca\xfe\xba\xbe")])),
]

READ = [
    Case("whole", "two tensors of two storages", READS, file(state({"a": GOOD, "b": tensor(storage(key=text("1")), 1,
         (3,), (1,))}), {"0": WEIGHTS, "1": WEIGHTS}),
         {**HELD, **held("b", "F32 [3]", WEIGHTS[4:])}),
    Case("ordered", "the dictionary that Module.state_dict gives, with its _metadata", READS,
         instead(ORDERED + b"(" + text("a") + GOOD + b"u}" + text("_metadata") + ORDERED + text("") + b"}"
                 + text("version") + number(1) + b"sssb"), HELD),
    Case("shared", "two tensors of one storage", READS, file(state({"a": GOOD, "b": tensor(offset=2, shape=(2,),
         strides=(1,))})), {**HELD, **held("b", "F32 [2]", WEIGHTS[8:])}),
    Case("transposed", "a view: columns first", READS, one(tensor(strides=(1, 2))),
         held(data=struct.pack("<4f", 1, 3, 2, 4))),
    Case("nested", "dictionaries and lists in one another, with numbers and texts", READS,
         file(PROTO + b"}(" + text("model") + b"}(" + text("a") + GOOD + b"u" + text("steps") + number(7)
              + text("rates")
              + b"](G" + struct.pack(">d", 0.5) + b"Ne" + text("list") + b"](" + GOOD + b"eu."),
         {**held("model.a"), **held("list.0")}),
    Case("scalar", "no dimensions", READS, one(tensor(offset=3, shape=(), strides=())),
         held("a", "F32 []", WEIGHTS[12:])),
    Case("zero-size", "no elements", READS, file(state({"a": GOOD, "z": tensor(shape=(0, 3), strides=(3, 1))})),
         {**HELD, "z": "F32 [0, 3] "}),
    Case("stride-of-one", "a stride that is never stepped", READS, one(tensor(shape=(1, 4), strides=(10**9, 1))),
         held("a", "F32 [1, 4]")),
    Case("memo", "names and functions from the memo", READS,
         file(PROTO + b"}q\0(" + text("a") + b"q\1" + GOOD + text("b") + b"r\2\0\0\0" + ORDERED + text("c") + b"h\1u."),
         HELD),
    Case("memo-put-again", "a number of the memo that is used again", ODD_CODE + " reads",
         file(PROTO + b"}(" + text("a") + b"q\0" + GOOD + b"q\0u."), HELD),
    Case("memo-gap", "numbers of the memo that leave some out", ODD_CODE + " reads",
         file(PROTO + b"}(" + text("a") + b"q\xfe" + GOOD + b"r\0\0\1\0u."), HELD),
    Case("names-by-case", "names that differ in case are two", READS, file(state({"a": GOOD, "A": GOOD})),
         {**HELD, **held("A")}),
    Case("name-like-code", "a text that is the name of a function is a text", READS, file(state({"os.system": GOOD})),
         held("os.system")),
    Case("parameter", "a parameter", READS, one(call("torch._utils", "_rebuild_parameter", GOOD, b"\x88", ORDERED)),
         HELD),
    Case("root", "another name of the directory", READS, file(state({"a": GOOD}), root="my model"), HELD),
    Case("byte-order", "a model that says its byte order", READS,
         file(state({"a": GOOD}), more={"byteorder": b"little"}), HELD),
    Case("names-many", "one tensor under 12,000 names, by the memo", READS + " executable malformed-header",
         file(PROTO + b"}(" + text("n00000") + GOOD + b"q\0"
              + b"".join(text(f"n{i:05}") + b"h\0" for i in range(1, 12_000)) + b"u."),
         {f"n{i:05}": HELD["a"] for i in range(12_000)}),
    Case("no-tensors", "an empty dictionary", READS, file(state({}), {}), {}),
]

OLD_STORE = storage()[:-2] + b"NtQ"
OLD_MAGIC = PROTO + b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19" + STOP
OLD_VERSION = PROTO + number(1001) + STOP
OLD_KEYS = PROTO + b"]" + text("0") + b"a" + STOP
OLD_DATA = struct.pack("<q", 4) + WEIGHTS


def dictionary(items: dict[str, bytes]) -> bytes:
    """Push a dictionary."""
    return b"}(" + b"".join(text(name) + value for name, value in items.items()) + b"u"


MACHINE = {"protocol_version": number(1001), "little_endian": b"\x88",
    "type_sizes": dictionary({"short": number(2), "int": number(4), "long": number(4)})}


def old(
    value: bytes = tensor(OLD_STORE),
    *,
    magic: bytes = OLD_MAGIC,
    version: bytes = OLD_VERSION,
    machine: dict[str, bytes] | bytes = MACHINE,
    keys: bytes = OLD_KEYS,
    data: bytes = OLD_DATA,
) -> bytes:
    """Write a file from before PyTorch 1.6: five pickles, and the storages."""
    facts = machine if isinstance(machine, bytes) else PROTO + dictionary(machine) + STOP
    return magic + version + facts + state({"a": value}) + keys + data


def python_2(value: str) -> bytes:
    """Push a text of Python 2."""
    return b"U" + bytes([len(value)]) + value.encode("latin-1")


RUN = PROTO + call("posix", "system", ID) + STOP

OLD = [
    Case("whole-old", "a file from before PyTorch 1.6", READS, old(), HELD),
    Case("old-python-2", "the same of Python 2: its texts, its memo, and no hooks", READS,
         old(tensor(b"(" + python_2("storage") + b"q\1" + FLOATS + python_2("0") + b"q\2" + python_2("cuda:0")
                    + number(4) + b"NtQ", hooks=b"N")), HELD),
    *[
        Case(f"old-{name}", what, words, content)
        for name, what, words, content in [
            ("code", "code where a tensor belongs", CODE, old(call("posix", "system", ID))),
            ("code-first", "code behind the magic number: the version is a pickle", CODE, old(version=RUN)),
            ("code-facts", "code for the facts about the machine", CODE, old(machine=RUN)),
            ("code-keys", "code for the keys of the storages", CODE, old(keys=RUN)),
            ("code-behind", "a sixth pickle behind the keys", "trailing-bytes span truncated", old(data=RUN)),
            ("code-storage", "a pickle behind the storages", "trailing-bytes", old(data=OLD_DATA + RUN)),
            ("code-hooks", "a function for the hooks", ODD_CODE, old(tensor(OLD_STORE, hooks=load("os", "system")))),
            ("module", "a class and its source", CODE,
             old(tuple_(text("module"), load("__main__", "Net"), text("net.py"), text("class Net: pass")) + b"Q")),
            ("magic-only", "the magic number and nothing else", "truncated", OLD_MAGIC),
            ("magic-later", "the magic number behind another pickle", CODE, old(magic=PROTO + b"N." + OLD_MAGIC)),
            ("version-0", "another version", "unsupported malformed-header",
             old(version=PROTO + number(0) + STOP)),
            ("version-true", "a truth value for the version", "malformed-header", old(version=PROTO + b"\x88.")),
            ("big-endian", "the other byte order", "unsupported", old(machine=MACHINE | {"little_endian": b"\x89"})),
            ("type-sizes", "a long of 8 bytes", "malformed-header unsupported",
             old(machine=MACHINE | {"type_sizes": dictionary({"short": number(2), "int": number(4),
                 "long": number(8)})})),
            ("facts-more", "a fact more", "malformed-header", old(machine=MACHINE | {"x": b"N"})),
            ("facts-twice", "a fact twice", "duplicate malformed-header",
             old(machine=PROTO + dictionary(MACHINE)[:-1] + text("little_endian") + b"\x89u" + STOP)),
            ("view", "a storage that is a view of another", "unsupported",
             old(tensor(storage()[:-2] + tuple_(text("1"), number(0), number(4)) + b"tQ"))),
            ("address-short", "an address as zip checkpoints have it", ODD_CODE, old(tensor())),
            ("key-unknown", "a storage that no tensor names", "span archive malformed-header",
             old(keys=PROTO + b"]" + text("1") + b"a" + STOP)),
            ("key-missing", "a storage that is not listed: whatever is in memory", "span malformed-header",
             old(keys=PROTO + b"]" + STOP, data=b"")),
            ("key-twice", "a storage twice: the last one counts", "duplicate",
             old(keys=PROTO + b"](" + text("0") + text("0") + b"e" + STOP, data=OLD_DATA * 2)),
            ("count-less", "a storage of fewer elements", "span", old(data=struct.pack("<q", 3) + WEIGHTS)),
            ("count-negative", "a storage of -1 elements", "span", old(data=struct.pack("<q", -1) + WEIGHTS)),
            ("count-2-61", "a storage of 2^61 floats: 0 where it wraps", "span truncated",
             old(tensor(storage(count=number(2**61))[:-2] + b"NtQ"), data=struct.pack("<q", 2**61) + WEIGHTS)),
            ("data-short", "a byte less than the storages take", "truncated", old(data=OLD_DATA[:-1])),
            ("sparse", "a hole of 1 GiB where the version belongs", "executable malformed-header",
             Sparse(OLD_MAGIC + PROTO, 2**30)),
            ("text-2-32", "a text of 4 GB in a hole of 1 GiB", "executable malformed-header truncated",
             Sparse(OLD_MAGIC + OLD_VERSION + PROTO + b"X\xff\xff\xff\xff", 2**30)),
            ("not-ascii", "a text of Python 2 in Latin-1, which readers decode as they please", "malformed-header",
             old(dictionary({"x": b"N"})[:-1] + python_2("\xe4") + b"Nu")),
        ]
    ],
    Case("old-tar", "the kind before PyTorch 0.1.2: a tar archive of pickles", "unsupported executable",
         b"sys_info".ljust(257, b"\0") + b"ustar\0" + b"00".ljust(249, b"\0") + RUN.ljust(512, b"\0")),
]

CASES = READ + OLD + GLOBALS + OPCODES + STREAMS + TENSORS + FILES
