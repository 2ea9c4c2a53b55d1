//! The machine: opcodes of protocols 2 to 5, those that plain data need.

use super::{Global, MAX_DEPTH, MAX_TEXT, Pickle, Storage, Tensor, Value};
use crate::error::FormatError;
use crate::format::checked::MAX_RANK;
use crate::tensor::Dtype;

/// Longest name of a global, and of its module.
const MAX_GLOBAL: usize = 256;
/// Longest frame. Python's are of 64 KiB, and what is longer lies between them.
const MAX_FRAME: u64 = 2 << 20;

/// Opcodes that are refused, by name.
#[rustfmt::skip]
const REFUSED: [(u8, &str); 34] = [
    (b'0', "POP"), (b'1', "POP_MARK"), (b'2', "DUP"), (b'B', "BINBYTES"), (b'C', "SHORT_BINBYTES"),
    (b'F', "FLOAT"), (b'I', "INT"), (b'L', "LONG"), (b'P', "PERSID"), (b'S', "STRING"), (b'T', "BINSTRING"),
    (b'U', "SHORT_BINSTRING"), (b'V', "UNICODE"), (b'd', "DICT"), (b'g', "GET"), (b'i', "INST"), (b'l', "LIST"),
    (b'o', "OBJ"), (b'p', "PUT"), (0x80, "PROTO"), (0x81, "NEWOBJ"), (0x82, "EXT1"), (0x83, "EXT2"), (0x84, "EXT4"), (0x8b, "LONG4"),
    (0x8d, "BINUNICODE8"), (0x8e, "BINBYTES8"), (0x8f, "EMPTY_SET"), (0x90, "ADDITEMS"), (0x91, "FROZENSET"),
    (0x92, "NEWOBJ_EX"), (0x96, "BYTEARRAY8"), (0x97, "NEXT_BUFFER"), (0x98, "READONLY_BUFFER"),
];

/// Types that have storages of their own, by the names of these.
#[rustfmt::skip]
const STORAGES: [(&str, Dtype); 12] = [
    ("BFloat16Storage", Dtype::BF16), ("BoolStorage", Dtype::BOOL), ("ByteStorage", Dtype::U8),
    ("CharStorage", Dtype::I8), ("ComplexDoubleStorage", Dtype::C128), ("ComplexFloatStorage", Dtype::C64),
    ("DoubleStorage", Dtype::F64), ("FloatStorage", Dtype::F32), ("HalfStorage", Dtype::F16), ("IntStorage", Dtype::I32),
    ("LongStorage", Dtype::I64), ("ShortStorage", Dtype::I16),
];

/// Types by the names of PyTorch.
#[rustfmt::skip]
const DTYPES: [(&str, Dtype); 20] = [
    ("bfloat16", Dtype::BF16), ("bool", Dtype::BOOL), ("complex128", Dtype::C128), ("complex64", Dtype::C64),
    ("float16", Dtype::F16), ("float32", Dtype::F32), ("float64", Dtype::F64), ("float8_e4m3fn", Dtype::F8_E4M3),
    ("float8_e4m3fnuz", Dtype::F8_E4M3FNUZ), ("float8_e5m2", Dtype::F8_E5M2), ("float8_e5m2fnuz", Dtype::F8_E5M2FNUZ),
    ("float8_e8m0fnu", Dtype::F8_E8M0), ("int16", Dtype::I16), ("int32", Dtype::I32), ("int64", Dtype::I64),
    ("int8", Dtype::I8), ("uint16", Dtype::U16), ("uint32", Dtype::U32), ("uint64", Dtype::U64), ("uint8", Dtype::U8),
];

/// Runs the machine over all of `bytes`, for at most `limit` values.
pub(super) fn run(bytes: &[u8], limit: usize) -> Result<Pickle<'_>, FormatError> {
    let mut machine = Machine::new(bytes, limit, false);
    machine.run()?;
    if machine.at != bytes.len() {
        return Err(machine.malformed("something follows its end"));
    }
    Ok(machine.pickle)
}

/// Runs it over the first of several pickles of a file from before 1.6, and says how long that is. Beyond what is read
/// elsewhere, they may be written by Python 2: its texts in ASCII, and a memo that counts from 1.
pub(super) fn run_first(bytes: &[u8], limit: usize) -> Result<(Pickle<'_>, usize), FormatError> {
    let mut machine = Machine::new(bytes, limit, true);
    machine.run()?;
    Ok((machine.pickle, machine.at))
}

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Where the opcode is that runs.
    op: usize,
    /// Where the frame ends.
    frame: Option<usize>,
    stack: Vec<Value<'a>>,
    marks: Vec<usize>,
    memo: Vec<Value<'a>>,
    /// The number of the first value in the memo.
    memo_from: usize,
    values: usize,
    /// Whether the file is from before 1.6.
    is_old: bool,
    pickle: Pickle<'a>,
}

impl<'a> Machine<'a> {
    fn new(bytes: &'a [u8], limit: usize, is_old: bool) -> Self {
        Self {
            bytes,
            at: 0,
            op: 0,
            frame: None,
            stack: Vec::new(),
            marks: Vec::new(),
            memo: Vec::new(),
            memo_from: 0,
            values: 0,
            is_old,
            pickle: Pickle { root: Value::None, items: Vec::new(), storages: Vec::new(), tensors: Vec::new(), limit },
        }
    }

    fn run(&mut self) -> Result<(), FormatError> {
        match self.array()? {
            [0x80, 2..=5] => {}
            _ => return Err(self.executable("a pickle of another protocol than 2 to 5")),
        }
        while self.step()? {}
        Ok(())
    }

    /// Runs one opcode, and says whether more follow.
    fn step(&mut self) -> Result<bool, FormatError> {
        self.op = self.at;
        let [opcode] = self.array()?;
        match opcode {
            b'.' => return self.stop().map(|()| false),
            0x95 => self.begin_frame()?,
            b'(' => self.mark()?,
            b'N' => self.push(Value::None)?,
            0x88 => self.push(Value::Bool(true))?,
            0x89 => self.push(Value::Bool(false))?,
            b'J' => {
                let int = i32::from_le_bytes(self.array()?);
                self.push(Value::Int(int.into()))?;
            }
            b'K' => {
                let [int] = self.array()?;
                self.push(Value::Int(int.into()))?;
            }
            b'M' => {
                let int = u16::from_le_bytes(self.array()?);
                self.push(Value::Int(int.into()))?;
            }
            0x8a => self.long()?,
            b'G' => {
                let float = f64::from_be_bytes(self.array()?);
                self.push(Value::Float(float))?;
            }
            b'X' => {
                let len = u32::from_le_bytes(self.array()?);
                self.text(len as usize)?;
            }
            b'U' if self.is_old => {
                let [len] = self.array()?;
                self.ascii(len.into())?;
            }
            b'T' if self.is_old => {
                let len = u32::from_le_bytes(self.array()?);
                self.ascii(len as usize)?;
            }
            0x8c => {
                let [len] = self.array()?;
                self.text(len.into())?;
            }
            b')' => self.tuple(Vec::new())?,
            0x85..=0x87 => {
                let from = self.above(usize::from(opcode - 0x84))?;
                let items = self.stack.split_off(from);
                self.tuple(items)?;
            }
            b't' => {
                let items = self.since_mark()?;
                self.tuple(items)?;
            }
            b']' => self.container(Value::List, Vec::new())?,
            b'}' => self.container(Value::Dict, Vec::new())?,
            b'a' => {
                let item = self.pop_data()?;
                self.append(vec![item])?;
            }
            b'e' => {
                let items = self.since_mark()?;
                self.append(items)?;
            }
            b's' => {
                let value = self.pop()?;
                let key = self.pop()?;
                self.set_items(vec![key, value])?;
            }
            b'u' => {
                let items = self.since_mark()?;
                self.set_items(items)?;
            }
            b'q' => {
                let [number] = self.array()?;
                self.put(number.into())?;
            }
            b'r' => {
                let number = u32::from_le_bytes(self.array()?);
                self.put(number as usize)?;
            }
            0x94 => self.put(self.memo.len())?,
            b'h' => {
                let [number] = self.array()?;
                self.get(number.into())?;
            }
            b'j' => {
                let number = u32::from_le_bytes(self.array()?);
                self.get(number as usize)?;
            }
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.global(module, name)?;
            }
            0x93 => match (self.pop()?, self.pop()?) {
                (Value::Text(name), Value::Text(module)) => self.global(module, name)?,
                _ => return Err(self.executable("STACK_GLOBAL of what is not text")),
            },
            b'Q' => match self.pop()? {
                Value::Address(number) => self.push(Value::Storage(number))?,
                _ => return Err(self.executable("a persistent id that is not of a storage")),
            },
            b'R' => self.reduce()?,
            b'b' => self.build()?,
            _ => {
                let name = REFUSED.iter().find(|(code, _)| *code == opcode).map(|(_, name)| *name);
                let name = name.map_or_else(|| format!("{opcode:#04x}"), str::to_owned);
                return Err(FormatError::Executable(format!("opcode {name} at byte {}", self.op)));
            }
        }
        if let Some(end) = self.frame {
            if self.at > end {
                return Err(self.malformed("an opcode across the end of its frame"));
            }
            self.frame = Some(end).filter(|end| self.at < *end);
        }
        Ok(true)
    }

    fn stop(&mut self) -> Result<(), FormatError> {
        self.pickle.root = self.pop_data()?;
        if !self.stack.is_empty() || !self.marks.is_empty() {
            return Err(self.malformed("it leaves more than one value"));
        }
        if self.frame.is_some_and(|end| end != self.at) {
            return Err(self.malformed("a frame that reaches beyond its end"));
        }
        Ok(())
    }

    fn begin_frame(&mut self) -> Result<(), FormatError> {
        let len = u64::from_le_bytes(self.array()?);
        if self.frame.is_some() {
            return Err(self.malformed("a frame within a frame"));
        }
        if !(1..=MAX_FRAME).contains(&len) {
            return Err(self.malformed("a frame of no byte, or of more than 2 MiB"));
        }
        let end = self.at + len as usize;
        if end > self.bytes.len() {
            return Err(FormatError::Truncated("the pickle ends early"));
        }
        self.frame = Some(end);
        Ok(())
    }

    fn mark(&mut self) -> Result<(), FormatError> {
        if self.marks.len() >= 4 * MAX_DEPTH {
            return Err(self.malformed("nested too deeply"));
        }
        self.marks.push(self.stack.len());
        Ok(())
    }

    /// An integer of any length: up to 64 bits here.
    fn long(&mut self) -> Result<(), FormatError> {
        let [len] = self.array()?;
        let bytes = self.take(len.into())?;
        let fill = if bytes.last().is_some_and(|byte| *byte >= 0x80) { 0xff } else { 0 };
        let mut int = [fill; 8];
        match int.get_mut(..bytes.len()) {
            Some(low) => low.copy_from_slice(bytes),
            None => return Err(self.malformed("an integer of more than 64 bits")),
        }
        self.push(Value::Int(i64::from_le_bytes(int)))
    }

    fn text(&mut self, len: usize) -> Result<(), FormatError> {
        if len > MAX_TEXT {
            return Err(self.malformed("a text of more than 1 MiB"));
        }
        let bytes = self.take(len)?;
        let text = std::str::from_utf8(bytes).map_err(|_| self.malformed("a text that is not UTF-8"))?;
        self.push(Value::Text(text))
    }

    /// A text of Python 2, which has no encoding: what every reader takes for the same.
    fn ascii(&mut self, len: usize) -> Result<(), FormatError> {
        self.text(len)?;
        match self.top()? {
            Value::Text(text) if text.is_ascii() => Ok(()),
            _ => Err(self.malformed("a text of Python 2 that is not ASCII")),
        }
    }

    /// A tuple of data, or the address of a storage.
    fn tuple(&mut self, items: Vec<Value<'a>>) -> Result<(), FormatError> {
        let is_address = items.iter().any(|item| matches!(item, Value::Global(Global::StorageType(_), _)));
        if !is_address {
            return self.container(Value::Tuple, items);
        }
        let [
            Value::Text("storage"),
            Value::Global(Global::StorageType(dtype), _),
            Value::Text(key),
            Value::Text(_),
            elements,
            ref view @ ..,
        ] = items[..]
        else {
            return Err(self.executable("a tuple with a type of storage that is not the address of one"));
        };
        match view {
            [] if !self.is_old => {}
            [Value::None] if self.is_old => {}
            [Value::Tuple(_)] if self.is_old => {
                return Err(FormatError::Unsupported("a storage that is a view of another".into()));
            }
            _ => return Err(self.executable("the address of a storage that has more or less than belongs to it")),
        }
        let elements = self.whole(elements)?;
        self.pickle.storages.push(Storage { key, dtype, elements });
        self.push(Value::Address(self.pickle.storages.len() - 1))
    }

    fn container(&mut self, kind: fn(usize) -> Value<'a>, items: Vec<Value<'a>>) -> Result<(), FormatError> {
        self.all_data(&items)?;
        self.pickle.items.push(items);
        self.push(kind(self.pickle.items.len() - 1))
    }

    fn append(&mut self, mut items: Vec<Value<'a>>) -> Result<(), FormatError> {
        self.all_data(&items)?;
        match self.top()? {
            Value::List(at) => self.pickle.items[at].append(&mut items),
            _ => return Err(self.executable("an append to what is no list")),
        }
        Ok(())
    }

    fn set_items(&mut self, mut items: Vec<Value<'a>>) -> Result<(), FormatError> {
        self.all_data(&items)?;
        if !items.len().is_multiple_of(2) {
            return Err(self.malformed("a key without a value"));
        }
        match self.top()? {
            Value::Dict(at) | Value::Ordered(at) => self.pickle.items[at].append(&mut items),
            _ => return Err(self.executable("items set in what is no dict")),
        }
        Ok(())
    }

    fn put(&mut self, number: usize) -> Result<(), FormatError> {
        if self.is_old && self.memo.is_empty() && number == 1 {
            self.memo_from = 1;
        }
        if number != self.memo_from + self.memo.len() {
            return Err(self.malformed("a memo that is not filled in order"));
        }
        let value = self.top()?;
        self.memo.push(value);
        self.count()
    }

    fn get(&mut self, number: usize) -> Result<(), FormatError> {
        match number.checked_sub(self.memo_from).and_then(|number| self.memo.get(number)) {
            Some(value) => self.push(*value),
            None => Err(self.malformed("nothing under this number in the memo")),
        }
    }

    fn global(&mut self, module: &str, name: &str) -> Result<(), FormatError> {
        let storage = |name: &str| Some(STORAGES.iter().find(|(known, _)| *known == name)?.1);
        let dtype = |name: &str| Some(DTYPES.iter().find(|(known, _)| *known == name)?.1);
        let global = match (module, name) {
            ("collections", "OrderedDict") => Global::OrderedDict,
            ("torch._utils", "_rebuild_tensor") if self.is_old => Global::RebuildTensorV1,
            ("torch._utils", "_rebuild_tensor_v2") => Global::RebuildTensor,
            ("torch._utils", "_rebuild_tensor_v3") => Global::RebuildTensorV3,
            ("torch._utils", "_rebuild_parameter") => Global::RebuildParameter,
            ("torch", "Size") => Global::Size,
            ("torch", "device") => Global::Device,
            ("torch.storage", "UntypedStorage") => Global::StorageType(None),
            ("torch", name) => match (storage(name), dtype(name)) {
                (Some(dtype), _) => Global::StorageType(Some(dtype)),
                (_, Some(dtype)) => return self.push(Value::Dtype(dtype)),
                _ => return Err(self.unknown_global(module, name)),
            },
            _ => return Err(self.unknown_global(module, name)),
        };
        self.push(Value::Global(global, self.op))
    }

    /// A call, all of whose arguments must be of the types expected.
    fn reduce(&mut self) -> Result<(), FormatError> {
        let arguments = self.pop()?;
        let (Value::Tuple(arguments), Value::Global(callable, _)) = (arguments, self.pop()?) else {
            return Err(self.executable("a call of what is no global, or without a tuple of arguments"));
        };
        let arguments = match &self.pickle.items[arguments] {
            few if few.len() <= 8 => few.clone(),
            _ => return Err(self.executable("a call with arguments that are not expected")),
        };
        match (callable, &arguments[..]) {
            (Global::OrderedDict, []) => self.container(Value::Ordered, Vec::new()),
            (Global::OrderedDict, [Value::List(at)]) => {
                let mut items = Vec::new();
                for pair in self.pickle.items[*at].clone() {
                    match pair {
                        Value::Tuple(at) | Value::List(at) if self.pickle.items[at].len() == 2 => {
                            items.extend_from_slice(&self.pickle.items[at]);
                            self.count()?;
                        }
                        _ => return Err(self.executable("an OrderedDict of what are no pairs")),
                    }
                }
                self.container(Value::Ordered, items)
            }
            (Global::RebuildTensorV1, [storage, offset, size, strides]) => {
                let Some(dtype) = self.storage(*storage)?.dtype else {
                    return Err(self.executable("a tensor of no type"));
                };
                self.tensor([*storage, *offset, *size, *strides], dtype)
            }
            (Global::RebuildTensor, [storage, offset, size, strides, Value::Bool(_), hooks, rest @ ..]) => {
                self.hooks(*hooks, rest)?;
                let dtype = self.storage(*storage)?.dtype;
                let Some(dtype) = dtype else {
                    return Err(self.executable("a tensor of no type"));
                };
                self.tensor([*storage, *offset, *size, *strides], dtype)
            }
            (
                Global::RebuildTensorV3,
                [storage, offset, size, strides, Value::Bool(_), hooks, Value::Dtype(dtype), rest @ ..],
            ) => {
                self.hooks(*hooks, rest)?;
                if self.storage(*storage)?.dtype.is_some() {
                    return Err(self.executable("a tensor of two types"));
                }
                self.tensor([*storage, *offset, *size, *strides], *dtype)
            }
            (Global::RebuildParameter, [tensor @ Value::Tensor(_), Value::Bool(_), hooks]) => {
                self.hooks(*hooks, &[])?;
                self.push(*tensor)
            }
            (Global::Size, [Value::Tuple(at)]) => {
                self.sizes(*at)?;
                self.push(Value::Tuple(*at))
            }
            (Global::Device, [device @ Value::Text(_)] | [device @ Value::Text(_), Value::Int(_)]) => {
                self.push(*device)
            }
            (Global::StorageType(_), _) => Err(self.executable("a call of a type of storage")),
            _ => Err(self.executable("a call with arguments that are not expected")),
        }
    }

    /// What a state dict knows of its modules' versions: of no use here, and nothing else may be set.
    fn build(&mut self) -> Result<(), FormatError> {
        let state = self.pop()?;
        if let (Value::Dict(at), Value::Ordered(_)) = (state, self.top()?)
            && let [Value::Text("_metadata"), Value::Dict(_) | Value::Ordered(_)] = self.pickle.items[at][..]
        {
            return Ok(());
        }
        Err(self.executable("BUILD of what is not the metadata of a state dict"))
    }

    /// Checks that there are no hooks, nor the metadata of a conjugate or negated view.
    fn hooks(&self, hooks: Value<'a>, rest: &[Value<'a>]) -> Result<(), FormatError> {
        match (hooks, rest) {
            (Value::Ordered(at), [] | [Value::None]) if self.pickle.items[at].is_empty() => Ok(()),
            (Value::None, []) if self.is_old => Ok(()),
            (Value::Ordered(_), [Value::Dict(_)]) => {
                let hint = "a tensor that is a conjugate or negated view: resolve it and save it again";
                Err(FormatError::Unsupported(hint.into()))
            }
            _ => Err(self.executable("a tensor with hooks")),
        }
    }

    fn storage(&self, value: Value<'a>) -> Result<&Storage<'a>, FormatError> {
        match value {
            Value::Storage(number) => Ok(&self.pickle.storages[number]),
            _ => Err(self.executable("a tensor without a storage")),
        }
    }

    fn tensor(&mut self, [storage, offset, shape, strides]: [Value<'a>; 4], dtype: Dtype) -> Result<(), FormatError> {
        let (Value::Storage(storage), Value::Tuple(shape), Value::Tuple(strides)) = (storage, shape, strides) else {
            return Err(self.executable("a tensor with arguments that are not expected"));
        };
        let offset = self.whole(offset)?;
        let (shape, strides) = (self.sizes(shape)?, self.sizes(strides)?);
        self.values += shape.len() + strides.len();
        self.pickle.tensors.push(Tensor { storage, dtype, offset, shape, strides });
        self.push(Value::Tensor(self.pickle.tensors.len() - 1))
    }

    /// The numbers in a tuple.
    fn sizes(&self, tuple: usize) -> Result<Vec<u64>, FormatError> {
        let items = &self.pickle.items[tuple];
        if items.len() > MAX_RANK {
            return Err(self.malformed("a tensor of too many dimensions"));
        }
        items.iter().map(|item| self.whole(*item)).collect()
    }

    fn whole(&self, value: Value<'a>) -> Result<u64, FormatError> {
        match value {
            Value::Int(int) => u64::try_from(int).map_err(|_| self.malformed("a size below zero")),
            _ => Err(self.executable("a size that is no whole number")),
        }
    }

    fn push(&mut self, value: Value<'a>) -> Result<(), FormatError> {
        self.stack.push(value);
        self.count()
    }

    /// Counts what takes memory.
    fn count(&mut self) -> Result<(), FormatError> {
        self.values += 1;
        if self.values > self.pickle.limit {
            Err(self.malformed("more values than any checkpoint has"))
        } else {
            Ok(())
        }
    }

    fn top(&self) -> Result<Value<'a>, FormatError> {
        self.above(1).map(|at| self.stack[at])
    }

    fn pop(&mut self) -> Result<Value<'a>, FormatError> {
        let at = self.above(1)?;
        let value = self.stack[at];
        self.stack.truncate(at);
        Ok(value)
    }

    fn pop_data(&mut self) -> Result<Value<'a>, FormatError> {
        let value = self.pop()?;
        self.all_data(&[value])?;
        Ok(value)
    }

    /// Where the topmost `count` values begin, which must lie above the last mark.
    fn above(&self, count: usize) -> Result<usize, FormatError> {
        let floor = self.marks.last().copied().unwrap_or(0);
        let at = self.stack.len().checked_sub(count).filter(|at| *at >= floor);
        at.ok_or_else(|| self.malformed("too few values on the stack"))
    }

    fn since_mark(&mut self) -> Result<Vec<Value<'a>>, FormatError> {
        match self.marks.pop() {
            Some(mark) => Ok(self.stack.split_off(mark)),
            None => Err(self.malformed("no mark on the stack")),
        }
    }

    /// Checks that values are data, not names of something to be called.
    fn all_data(&self, values: &[Value<'a>]) -> Result<(), FormatError> {
        match values.iter().find(|value| matches!(value, Value::Global(..) | Value::Address(_))) {
            Some(Value::Global(global, at)) => {
                Err(FormatError::Executable(format!("global {global:?} at byte {at} is data, and not called")))
            }
            Some(_) => Err(self.executable("the address of a storage as data")),
            None => Ok(()),
        }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], FormatError> {
        let mut bytes = [0; N];
        bytes.copy_from_slice(self.take(N)?);
        Ok(bytes)
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], FormatError> {
        let bytes = self.bytes[self.at..].get(..len).ok_or(FormatError::Truncated("the pickle ends early"))?;
        self.at += len;
        Ok(bytes)
    }

    /// Text up to the end of the line.
    fn line(&mut self) -> Result<&'a str, FormatError> {
        let rest = &self.bytes[self.at..];
        let Some(len) = rest.iter().take(MAX_GLOBAL).position(|byte| *byte == b'\n') else {
            return Err(match rest.len() < MAX_GLOBAL {
                true => FormatError::Truncated("the pickle ends early"),
                false => self.malformed("a name of more than 255 bytes"),
            });
        };
        self.at += len + 1;
        std::str::from_utf8(&rest[..len]).map_err(|_| self.malformed("a name that is not UTF-8"))
    }

    fn unknown_global(&self, module: &str, name: &str) -> FormatError {
        let short = |text: &str| text.chars().take(MAX_GLOBAL).collect::<String>();
        FormatError::Executable(format!("global {}.{} at byte {}", short(module), short(name), self.op))
    }

    fn executable(&self, what: &str) -> FormatError {
        FormatError::Executable(format!("{what} at byte {}", self.op))
    }

    fn malformed(&self, problem: &str) -> FormatError {
        FormatError::MalformedHeader(format!("pickle: {problem}, at byte {}", self.op))
    }
}
