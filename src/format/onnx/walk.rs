//! The way through a model, down to its tensors.

use std::collections::BTreeMap;

use super::tensor::{self, ENTRY, TENSOR, entry};
use super::wire::{Kind, Message, Schema};
use crate::error::{FormatError, Result};
use crate::tensor::{Storage, TensorInfo};

/// Most that names, shapes and metadata may take, in bytes.
pub(super) const MAX_INDEX: u64 = 100_000_000;
/// What a tensor takes besides, about.
const PER_TENSOR: u64 = 256;
/// Graphs within graphs, at most.
pub(super) const MAX_DEPTH: usize = 32;

const OPSET: Schema = Schema("OperatorSetIdProto", &[(1, "domain", Kind::Bytes), (2, "version", Kind::Int)]);

const TRAINING: Schema =
    Schema("TrainingInfoProto", &[(1, "initialization", Kind::Bytes), (2, "algorithm", Kind::Bytes)]);

#[rustfmt::skip]
const GRAPH: Schema = Schema("GraphProto", &[
    (1, "node", Kind::Many), (2, "name", Kind::Bytes), (5, "initializer", Kind::Many),
    (15, "sparse_initializer", Kind::Many),
]);

#[rustfmt::skip]
const NODE: Schema = Schema("NodeProto", &[
    (1, "input", Kind::Many), (2, "output", Kind::Many), (3, "name", Kind::Bytes), (4, "op_type", Kind::Bytes),
    (5, "attribute", Kind::Many), (7, "domain", Kind::Bytes), (8, "overload", Kind::Bytes),
]);

#[rustfmt::skip]
const FUNCTION: Schema = Schema("FunctionProto", &[
    (1, "name", Kind::Bytes), (7, "node", Kind::Many), (10, "domain", Kind::Bytes), (11, "attribute_proto", Kind::Many),
    (13, "overload", Kind::Bytes),
]);

#[rustfmt::skip]
const ATTRIBUTE: Schema = Schema("AttributeProto", &[
    (1, "name", Kind::Bytes), (13, "doc_string", Kind::Bytes), (20, "type", Kind::Int), (21, "ref_attr_name", Kind::Bytes),
    (2, "f", Kind::Float), (3, "i", Kind::Int), (4, "s", Kind::Bytes), (5, "t", Kind::Bytes), (6, "g", Kind::Bytes),
    (7, "floats", Kind::Floats), (8, "ints", Kind::Ints), (9, "strings", Kind::Many), (10, "tensors", Kind::Many),
    (11, "graphs", Kind::Many), (14, "tp", Kind::Bytes), (15, "type_protos", Kind::Many),
    (22, "sparse_tensor", Kind::Bytes), (23, "sparse_tensors", Kind::Many),
]);

/// The fields that hold the value of an attribute of each type, from type 1.
#[rustfmt::skip]
const VALUES: [&str; 14] = [
    "f", "i", "s", "t", "g", "floats", "ints", "strings", "tensors", "graphs", "sparse_tensor", "sparse_tensors", "tp",
    "type_protos",
];

/// What is found on the way through a model.
#[derive(Default)]
pub(super) struct Walk {
    pub(super) tensors: Vec<TensorInfo>,
    pub(super) metadata: BTreeMap<String, String>,
    /// Tensors of strings, left out.
    pub(super) strings: u64,
    /// Sparse tensors, left out.
    pub(super) sparse: u64,
    size: u64, // of all this, to be held to `MAX_INDEX`
}

impl Walk {
    pub(super) fn model(&mut self, mut model: Message<'_, '_>) -> Result<()> {
        let (mut version, mut has_graph) = (None, false);
        let (mut producer, mut operators) = ([String::new(), String::new()], Vec::new());
        let mut trainings = 0;
        while let Some(field) = model.next()? {
            match field.name {
                "ir_version" => version = Some(field.int),
                "producer_name" => producer[0] = model.text(field)?,
                "producer_version" => producer[1] = model.text(field)?,
                "graph" => {
                    has_graph = true;
                    self.graph(model.enter(field, &GRAPH), "", 0)?;
                }
                "opset_import" => {
                    let operator_set = operator_set(model.enter(field, &OPSET))?;
                    self.charge(&model, operator_set.len() as u64 + PER_TENSOR)?;
                    operators.push(operator_set);
                }
                "metadata_props" => {
                    let (key, value) = entry(model.enter(field, &ENTRY))?;
                    self.describe(&model, key, value)?;
                }
                "training_info" => {
                    self.training(model.enter(field, &TRAINING), trainings)?;
                    trainings += 1;
                }
                "functions" => self.function(model.enter(field, &FUNCTION))?,
                _ => {}
            }
        }
        let Some(version) = version.filter(|_| has_graph && !operators.is_empty()) else {
            return Err(model.malformed("it has no graph, no ir_version or no opset_import"));
        };
        self.describe(&model, "onnx.ir_version".into(), version.to_string())?;
        self.describe(&model, "onnx.opset_import".into(), operators.join(", "))?;
        self.describe(&model, "onnx.producer".into(), producer.join(" ").trim().to_owned())
    }

    fn describe(&mut self, model: &Message<'_, '_>, key: String, value: String) -> Result<()> {
        self.charge(model, (key.len() + value.len()) as u64 + PER_TENSOR)?;
        match self.metadata.insert(key.clone(), value) {
            None => Ok(()),
            Some(_) => Err(model.fail(FormatError::Duplicate(key))),
        }
    }

    fn training(&mut self, mut training: Message<'_, '_>, number: u64) -> Result<()> {
        while let Some(field) = training.next()? {
            if let name @ ("initialization" | "algorithm") = field.name {
                self.graph(training.enter(field, &GRAPH), &format!("training_info.{number}.{name}/"), 0)?;
            }
        }
        Ok(())
    }

    fn function(&mut self, mut function: Message<'_, '_>) -> Result<()> {
        let [mut domain, mut name, mut overload] = [const { String::new() }; 3];
        let (first, mut nodes) = (self.tensors.len(), 0);
        while let Some(field) = function.next()? {
            match field.name {
                "name" => name = function.text(field)?,
                "domain" => domain = function.text(field)?,
                "overload" => overload = function.text(field)?,
                "attribute_proto" => {
                    let owner = Owner { path: "", name: "attribute_proto".into(), is_constant: false, depth: 0 };
                    self.attribute(function.enter(field, &ATTRIBUTE), &owner)?;
                }
                "node" => {
                    self.node(function.enter(field, &NODE), "", nodes, 0)?;
                    nodes += 1;
                }
                _ => {}
            }
        }
        let separator = if overload.is_empty() { "" } else { "::" };
        let path = format!("{domain}::{name}{separator}{overload}/"); // known only now: the domain follows the nodes
        if path.chars().any(char::is_control) {
            return Err(function.malformed("its name holds control characters"));
        }
        self.charge(&function, (path.len() * (self.tensors.len() - first)) as u64)?;
        self.tensors[first..].iter_mut().for_each(|tensor| tensor.name.insert_str(0, &path));
        Ok(())
    }

    /// Walks the graph whose tensors are called `path` and something.
    fn graph(&mut self, mut graph: Message<'_, '_>, path: &str, depth: usize) -> Result<()> {
        if depth > MAX_DEPTH {
            return Err(graph.malformed("graphs are nested too deeply"));
        }
        self.charge(&graph, path.len() as u64)?;
        let mut nodes = 0;
        while let Some(field) = graph.next()? {
            match field.name {
                "initializer" => self.tensor(graph.enter(field, &TENSOR), |name| format!("{path}{name}"))?,
                "sparse_initializer" => self.sparse += 1,
                "node" => {
                    self.node(graph.enter(field, &NODE), path, nodes, depth)?;
                    nodes += 1;
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn node(&mut self, mut node: Message<'_, '_>, path: &str, number: u64, depth: usize) -> Result<()> {
        let mut owner = Owner { path, name: String::new(), is_constant: false, depth };
        let mut has_attributes = false;
        while let Some(field) = node.next()? {
            match field.name {
                "output" | "op_type" if has_attributes => {
                    return Err(node.malformed(format_args!("{} comes after attribute", field.name)));
                }
                "output" if owner.name.is_empty() => owner.name = node.text(field)?,
                "op_type" => owner.is_constant = node.text(field)? == "Constant",
                "attribute" => {
                    has_attributes = true;
                    if owner.name.is_empty() {
                        owner.name = format!("#{number}");
                    }
                    self.attribute(node.enter(field, &ATTRIBUTE), &owner)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn attribute(&mut self, mut attribute: Message<'_, '_>, owner: &Owner<'_>) -> Result<()> {
        let (mut name, mut kind) = (None, None);
        let (mut value, mut count) = (None, 0u64);
        while let Some(field) = attribute.next()? {
            if VALUES.contains(&field.name) {
                let before = value.replace(field.name);
                if name.is_none() || before.is_some_and(|before| before != field.name) {
                    return Err(attribute.malformed("it holds values of two kinds, or one before its name"));
                }
            }
            let owned =
                |separator| format!("{}{}{separator}{}", owner.path, owner.name, name.as_deref().unwrap_or_default());
            let depth = owner.depth + 1;
            match field.name {
                "name" => name = Some(attribute.text(field)?),
                "type" => kind = Some(field.int),
                "t" => {
                    let is_constant = owner.is_constant && name.as_deref() == Some("value");
                    let name = |_| if is_constant { format!("{}{}", owner.path, owner.name) } else { owned('.') };
                    self.tensor(attribute.enter(field, &TENSOR), name)?;
                }
                "tensors" => {
                    self.tensor(attribute.enter(field, &TENSOR), |_| format!("{}.{count}", owned('.')))?;
                    count += 1;
                }
                "g" => self.graph(attribute.enter(field, &GRAPH), &format!("{}/", owned('/')), depth)?,
                "graphs" => {
                    self.graph(attribute.enter(field, &GRAPH), &format!("{}/{count}/", owned('/')), depth)?;
                    count += 1;
                }
                "sparse_tensor" | "sparse_tensors" => self.sparse += 1,
                _ => {}
            }
        }
        let stated = kind.map(|kind| kind.checked_sub(1).and_then(|row| VALUES.get(usize::try_from(row).ok()?)));
        if let (Some(value), Some(stated)) = (&value, stated)
            && stated != Some(value)
        {
            return Err(attribute.malformed(format_args!("its type is not that of its value, {value}")));
        }
        Ok(())
    }

    /// Reads a tensor; `name` says what to call one that calls itself so.
    fn tensor(&mut self, mut message: Message<'_, '_>, name: impl FnOnce(String) -> String) -> Result<()> {
        let Some(tensor) = tensor::read(&mut message, name)? else {
            self.strings += 1;
            return Ok(());
        };
        let path = if let Storage::External(path) = &tensor.storage { path.len() } else { 0 };
        self.charge(&message, (tensor.name.len() + path + 8 * tensor.shape.len()) as u64 + PER_TENSOR)?;
        self.tensors.push(tensor);
        Ok(())
    }

    /// Counts `size` bytes of memory.
    fn charge(&mut self, message: &Message<'_, '_>, size: u64) -> Result<()> {
        self.size = self.size.saturating_add(size);
        if self.size > MAX_INDEX {
            return Err(message.fail(FormatError::HeaderTooLarge { size: self.size, limit: MAX_INDEX }));
        }
        Ok(())
    }
}

/// Whose attribute it is: what its tensors are called after.
struct Owner<'a> {
    path: &'a str,
    name: String,
    is_constant: bool,
    depth: usize,
}

/// An operator set as text.
fn operator_set(mut message: Message<'_, '_>) -> Result<String> {
    let (mut domain, mut version) = (String::new(), 0);
    while let Some(field) = message.next()? {
        match field.name {
            "domain" => domain = message.text(field)?,
            "version" => version = field.int,
            _ => {}
        }
    }
    let domain = if domain.is_empty() { "ai.onnx" } else { &domain };
    Ok(format!("{domain} {version}"))
}
