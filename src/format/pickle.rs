//! Pickles as data: a machine that knows values of a few types and calls nothing.
//!
//! Only what `torch.save` writes of plain data is understood: numbers, texts, lists, tuples, dicts, and tensors by the
//! storages they name. Every other opcode, global or argument is [`FormatError::Executable`], so what this reader takes is
//! *provably plain data*: loading it in Python runs nothing but constructors of these types.
//!
//! Values live in flat arenas and refer to each other by number. As in any pickle they can be shared, and even hold
//! themselves: whoever walks them must count steps and depth, as [`Pickle::walk`] does.

mod inert;
mod opcodes;

use std::borrow::Cow;
use std::collections::HashSet;

pub(super) use inert::is_inert;

use super::checked;
use crate::error::FormatError;
use crate::tensor::Dtype;

/// Most values in a pickle, and most that are met when walking it, shared ones each time.
const MAX_VALUES: u64 = 1 << 21;
/// Fewer in a small file: this many, and one more for every 16 bytes of it.
const FEW_VALUES: u64 = 1 << 17;
/// Most tensors likewise.
const MAX_TENSORS: usize = 1 << 18;
/// Deepest nesting of containers.
const MAX_DEPTH: usize = 64;
/// Longest text in bytes.
const MAX_TEXT: usize = 1 << 20;
/// Longest name of a value, from the names of all that it lies in.
const MAX_NAME: usize = 4096;
/// Most bytes of names in all.
const MAX_NAMES: usize = 8 << 20;

/// A value. Containers, storages and tensors are numbers into the [`Pickle`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Value<'a> {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(&'a str),
    Dtype(Dtype),
    Tuple(usize),
    List(usize),
    Dict(usize),
    /// `collections.OrderedDict`.
    Ordered(usize),
    Storage(usize),
    Tensor(usize),
    /// The name of a storage, which only a persistent id may be.
    Address(usize),
    /// Something by its name, at this byte, which only a call or an address may use.
    Global(Global, usize),
}

/// What a pickle may name.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Global {
    OrderedDict,
    RebuildTensorV1,
    RebuildTensor,
    RebuildTensorV3,
    RebuildParameter,
    Size,
    Device,
    /// A type of storage; none that is untyped.
    StorageType(Option<Dtype>),
}

/// A storage: bytes under a key.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Storage<'a> {
    pub(crate) key: &'a str,
    /// Type of its elements; bytes if there is none.
    pub(crate) dtype: Option<Dtype>,
    /// Number of its elements.
    pub(crate) elements: u64,
}

/// A view of a storage. Nothing is checked but that the numbers are not negative.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Tensor {
    pub(crate) storage: usize,
    pub(crate) dtype: Dtype,
    /// In elements.
    pub(crate) offset: u64,
    pub(crate) shape: Vec<u64>,
    pub(crate) strides: Vec<u64>,
}

/// What a pickle holds.
#[derive(Debug)]
pub(crate) struct Pickle<'a> {
    root: Value<'a>,
    /// Items of tuples and lists; keys and values of dicts in turn.
    items: Vec<Vec<Value<'a>>>,
    storages: Vec<Storage<'a>>,
    tensors: Vec<Tensor>,
    /// Most values.
    limit: usize,
}

impl<'a> Pickle<'a> {
    /// Reads the pickle in a file of `size` bytes, if it is provably plain data; the cause says why not.
    pub(crate) fn read(bytes: &'a [u8], size: u64) -> Result<Self, FormatError> {
        opcodes::run(bytes, (FEW_VALUES + size / 16).min(MAX_VALUES) as usize)
    }

    /// Reads the first of several pickles in a file from before 1.6, likewise, and says how many bytes it takes.
    pub(crate) fn read_first(bytes: &'a [u8], size: u64) -> Result<(Self, usize), FormatError> {
        opcodes::run_first(bytes, (FEW_VALUES + size / 16).min(MAX_VALUES) as usize)
    }

    /// The value that the pickle stands for.
    pub(crate) fn root(&self) -> Value<'a> {
        self.root
    }

    /// The items of a tuple or list, the keys and values of a dict in turn; none of another value.
    pub(crate) fn items(&self, value: Value<'a>) -> &[Value<'a>] {
        match value {
            Value::Tuple(at) | Value::List(at) | Value::Dict(at) | Value::Ordered(at) => &self.items[at],
            _ => &[],
        }
    }

    /// The storages named, in order.
    pub(crate) fn storages(&self) -> &[Storage<'a>] {
        &self.storages
    }

    pub(crate) fn tensor(&self, number: usize) -> &Tensor {
        &self.tensors[number]
    }

    /// Hands every value that is no container to `visit`, by its name: keys of dicts and positions in lists, joined by
    /// dots; empty for the root. Two values of one name are refused.
    pub(crate) fn walk(
        &self,
        visit: &mut dyn FnMut(&str, Value<'a>) -> Result<(), FormatError>,
    ) -> Result<(), FormatError> {
        let mut walk = Walk { pickle: self, visit, name: String::new(), values: 0, tensors: 0, names: 0 };
        walk.value(self.root, 0)
    }
}

struct Walk<'w, 'a> {
    pickle: &'w Pickle<'a>,
    visit: &'w mut dyn FnMut(&str, Value<'a>) -> Result<(), FormatError>,
    name: String,
    values: usize,
    tensors: usize,
    names: usize,
}

impl<'a> Walk<'_, 'a> {
    fn value(&mut self, value: Value<'a>, depth: usize) -> Result<(), FormatError> {
        let malformed = |problem: &str| Err(FormatError::MalformedHeader(problem.to_owned()));
        self.values += 1;
        self.names += self.name.len();
        self.tensors += usize::from(matches!(value, Value::Tensor(_)));
        if self.values > self.pickle.limit || self.tensors > MAX_TENSORS || self.names > MAX_NAMES {
            return malformed("a pickle of more values than any checkpoint has");
        }
        if depth > MAX_DEPTH {
            return malformed("a pickle nested too deeply, or without end");
        }
        let pickle = self.pickle;
        match value {
            Value::Tuple(at) | Value::List(at) => {
                for (position, item) in pickle.items[at].iter().enumerate() {
                    self.named(&position.to_string(), *item, depth)?;
                }
                Ok(())
            }
            Value::Dict(at) | Value::Ordered(at) => {
                let mut seen = HashSet::new();
                for pair in pickle.items[at].chunks_exact(2) {
                    let key = match pair[0] {
                        Value::Text(key) => Cow::Borrowed(key),
                        Value::Int(key) => Cow::Owned(key.to_string()),
                        _ => return malformed("a dict with a key that is neither text nor a whole number"),
                    };
                    if !seen.insert(key.clone()) {
                        return Err(FormatError::Duplicate(key.into()));
                    }
                    self.named(&key, pair[1], depth)?;
                }
                Ok(())
            }
            leaf => (self.visit)(&self.name, leaf),
        }
    }

    fn named(&mut self, key: &str, value: Value<'a>, depth: usize) -> Result<(), FormatError> {
        let len = self.name.len();
        checked::name(key)?;
        if len + key.len() >= MAX_NAME {
            return Err(FormatError::MalformedHeader("a pickle with a name of more than 4096 bytes".into()));
        }
        if depth > 0 {
            self.name.push('.');
        }
        self.name.push_str(key);
        self.value(value, depth + 1)?;
        self.name.truncate(len);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(bytes: &[u8]) -> String {
        let whole = [b"\x80\x02", bytes].concat();
        match Pickle::read(&whole, u64::MAX).and_then(|pickle| pickle.walk(&mut |_, _| Ok(()))) {
            Err(cause) => cause.to_string(),
            Ok(()) => panic!("taken: {bytes:?}"),
        }
    }

    fn leaves(bytes: &[u8]) -> Vec<(String, String)> {
        let mut leaves = Vec::new();
        let pickle = Pickle::read(bytes, 0).unwrap();
        let walked = pickle.walk(&mut |name, value| {
            leaves.push((name.to_owned(), format!("{value:?}")));
            Ok(())
        });
        walked.unwrap();
        leaves
    }

    fn leaf(bytes: &[u8]) -> String {
        leaves(&[b"\x80\x02", bytes].concat()).remove(0).1
    }

    #[test]
    fn plain_values_are_read() {
        assert_eq!(leaf(b"N."), "None");
        assert_eq!(leaf(b"\x88."), "Bool(true)");
        assert_eq!(leaf(b"J\xff\xff\xff\xff."), "Int(-1)");
        assert_eq!(leaf(b"M\x01\x02."), "Int(513)");
        assert_eq!(leaf(b"\x8a\0."), "Int(0)");
        assert_eq!(leaf(b"\x8a\x01\x80."), "Int(-128)");
        assert_eq!(leaf(b"\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f."), "Int(9223372036854775807)");
        assert_eq!(leaf(b"G\x3f\xe0\0\0\0\0\0\0."), "Float(0.5)");
        assert_eq!(leaf(b"X\x02\0\0\0\xc3\xbc."), "Text(\"\u{fc}\")");
        assert_eq!(leaf(b"ctorch\nfloat16\n."), "Dtype(F16)");
        assert_eq!(leaf(b"ctorch\ndevice\nX\x04\0\0\0cudaK\x01\x86R."), "Text(\"cuda\")");
        assert_eq!(leaf(b"ctorch\nSize\nK\x05\x85\x85R."), "Int(5)");
        // a list that grows after it was remembered: {"a": L, "b": L} with L = [1, 2]
        let shared = b"\x80\x02}q\0(X\x01\0\0\0a]q\x01K\x01aX\x01\0\0\0bh\x01K\x02au.";
        let names: Vec<_> = leaves(shared).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["a.0", "a.1", "b.0", "b.1"]);
        let framed = b"\x80\x04\x95\x08\0\0\0\0\0\0\0\x8c\x01a\x94\x85\x94.";
        assert!(Pickle::read(framed, 0).is_err(), "the frame is longer than what it holds");
        assert_eq!(
            leaves(b"\x80\x04\x95\x07\0\0\0\0\0\0\0\x8c\x01a\x94\x85\x94."),
            [("0".into(), "Text(\"a\")".into())]
        );
        let ordered = b"\x80\x02ccollections\nOrderedDict\n](X\x01\0\0\0aK\x01\x86X\x01\0\0\0bK\x02\x86e\x85R.";
        assert_eq!(leaves(ordered).len(), 2);
        let state = b"\x80\x02ccollections\nOrderedDict\n)R}X\x09\0\0\0_metadata}sb.";
        assert_eq!(leaves(state), []);
    }

    #[test]
    fn what_is_not_plain_data_is_refused_for_its_cause() {
        for (bytes, cause) in [
            (&b"cos\nsystem\nX\x02\0\0\0ls\x85R."[..], "not plain data: global os.system at byte 2"),
            (b"X\x02\0\0\0osX\x06\0\0\0system\x93.", "not plain data: global os.system at byte 20"),
            (b"K\x01X\x01\0\0\0a\x93.", "not plain data: STACK_GLOBAL of what is not text at byte 10"),
            (b"ios\nsystem\n.", "not plain data: opcode INST at byte 2"),
            (b"(cos\nsystem\no.", "not plain data: global os.system at byte 3"),
            (b"\x82\x01.", "not plain data: opcode EXT1 at byte 2"),
            (b")\x81.", "not plain data: opcode NEWOBJ at byte 3"),
            (b"N0N.", "not plain data: opcode POP at byte 3"),
            (b"N2.", "not plain data: opcode DUP at byte 3"),
            (b"\x80\x02N.", "not plain data: opcode PROTO at byte 2"),
            (b"\xff", "not plain data: opcode 0xff at byte 2"),
            (b"c_codecs\nencode\n.", "not plain data: global _codecs.encode at byte 2"),
            (b"cnumpy.core.multiarray\nscalar\n.", "not plain data: global numpy.core.multiarray.scalar at byte 2"),
            (b"ctorch\nload\n.", "not plain data: global torch.load at byte 2"),
            (b"ccollections\nOrderedDict\n.", "not plain data: global OrderedDict at byte 2 is data, and not called"),
            (
                b"]ctorch._utils\n_rebuild_tensor_v2\na.",
                "not plain data: global RebuildTensor at byte 3 is data, and not called",
            ),
            (
                b"ctorch\nFloatStorage\n.",
                "not plain data: global StorageType(Some(F32)) at byte 2 is data, and not called",
            ),
            (
                b"ctorch\nFloatStorage\n\x85.",
                "not plain data: a tuple with a type of storage that is not the address of one at byte 22",
            ),
            (b"ctorch\nFloatStorage\n)R.", "not plain data: a call of a type of storage at byte 23"),
            (
                b"ccollections\nOrderedDict\nK\x01\x85R.",
                "not plain data: a call with arguments that are not expected at byte 30",
            ),
            (
                b"ccollections\nOrderedDict\n]K\x01a\x85R.",
                "not plain data: an OrderedDict of what are no pairs at byte 32",
            ),
            (b"NN\x85R.", "not plain data: a call of what is no global, or without a tuple of arguments at byte 5"),
            (b"X\x01\0\0\0aQ.", "not plain data: a persistent id that is not of a storage at byte 8"),
            (b"ctorch\ndevice\nK\x01\x85R.", "not plain data: a call with arguments that are not expected at byte 19"),
            (b"}}b.", "not plain data: BUILD of what is not the metadata of a state dict at byte 4"),
            (
                b"ccollections\nOrderedDict\n)R}X\x01\0\0\0a}sb.",
                "not plain data: BUILD of what is not the metadata of a state dict at byte 38",
            ),
            (b"}K\x01a.", "not plain data: an append to what is no list at byte 5"),
            (b"]K\x01K\x01s.", "not plain data: items set in what is no dict at byte 7"),
            (b"}(K\x01u.", "malformed header: pickle: a key without a value, at byte 6"),
            (b"}(K\x01K\x02K\x01K\x02u.", "duplicate name \"1\""),
            (b"}(K\x01K\x02X\x01\0\0\x001K\x02u.", "duplicate name \"1\""),
            (b"}NNs.", "malformed header: a dict with a key that is neither text nor a whole number"),
            (b"N.N", "malformed header: pickle: something follows its end, at byte 3"),
            (b"NN.", "malformed header: pickle: it leaves more than one value, at byte 4"),
            (b"N(.", "malformed header: pickle: too few values on the stack, at byte 4"),
            (b"K\x01(t\x85", "truncated: the pickle ends early"),
            (b"t.", "malformed header: pickle: no mark on the stack, at byte 2"),
            (b"N(\x85.", "malformed header: pickle: too few values on the stack, at byte 4"),
            (b"Nq\x01.", "malformed header: pickle: a memo that is not filled in order, at byte 3"),
            (b"Nq\0h\x01.", "malformed header: pickle: nothing under this number in the memo, at byte 5"),
            (b"\x8a\x09\0\0\0\0\0\0\0\0\0.", "malformed header: pickle: an integer of more than 64 bits, at byte 2"),
            (b"X\x01\0\0\0\xff.", "malformed header: pickle: a text that is not UTF-8, at byte 2"),
            (b"X\xff\xff\xff\xffa", "malformed header: pickle: a text of more than 1 MiB, at byte 2"),
            (b"X\xff\0\0\0a", "truncated: the pickle ends early"),
            (b"U\x01a.", "not plain data: opcode SHORT_BINSTRING at byte 2"),
            (b"cos\nsys", "truncated: the pickle ends early"),
            (b"]q\0h\0a.", "malformed header: a pickle nested too deeply, or without end"),
        ] {
            assert_eq!(refused(bytes), cause);
        }
        assert!(refused(&[b'('; 2000]).contains("nested too deeply"));
        assert!(refused(&[b"N", &[0x85; 100][..], b"."].concat()).contains("nested too deeply"));
        assert!(refused(&[b"c", &[b'a'; 300][..], b"\n"].concat()).contains("more than 255 bytes"));
        assert!(Pickle::read(b"\x80\x01N.", 0).is_err() && Pickle::read(b"", 0).is_err());
        assert!(Pickle::read(b"\x80\x04\x95\x01\0\0\0\0\0\0\0K\x01.", 0).is_err(), "an opcode across its frame");
        assert!(Pickle::read(b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\xffN.", 0).is_err());
    }

    #[test]
    fn little_that_stands_for_much_is_refused() {
        // lists of ten times the list before
        let mut laughs = b"]q\0".to_vec();
        for i in 0..30u8 {
            laughs.push(b'(');
            laughs.extend([b'h', i].repeat(10));
            laughs.extend([b't', b'q', i + 1]);
        }
        let start = std::time::Instant::now();
        assert!(refused(&[&laughs[..], b"\x85."].concat()).contains("leaves more than one value"));
        let mut laughs = b"".to_vec();
        for i in 0..30u8 {
            laughs.extend([&b"]q"[..], &[i], b"("].concat());
            if i > 0 {
                laughs.extend([b'h', i - 1].repeat(10));
            }
            laughs.push(b'e');
        }
        laughs.extend([&b"\x87"[..]; 14].concat());
        laughs.extend(b"\x86.");
        assert!(refused(&laughs).contains("values"));
        assert!(refused(&vec![b']'; MAX_VALUES as usize + 1]).contains("more values than"));
        let many = [&b"\x80\x02"[..], &vec![b']'; FEW_VALUES as usize + 100]].concat();
        assert!(Pickle::read(&many, 1000).unwrap_err().to_string().contains("more values than"));
        assert!(start.elapsed().as_secs() < 10);
    }
}
