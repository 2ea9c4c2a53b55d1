//! The ONNX format: the tensors of a model's graphs, and where their bytes lie.
//!
//! Read are initializers, and tensors in attributes of nodes, in the main graph, in subgraphs (the branches of an `If`,
//! the body of a `Loop`), in graphs of training and in functions. What a tensor is called:
//!
//! - an initializer by its name; a tensor of a `Constant` node by that of the node's output
//! - a tensor in another attribute `<output>.<attribute>`, by the node's first output, and one in a list of them
//!   `<output>.<attribute>.<number>`, counted from 0 as everything here; a node without outputs counts as `#<number>`
//! - inside of a subgraph, `<output>/<attribute>/` goes before that, or `<output>/<attribute>/<number>/`, for each level
//! - inside of a graph of training, `training_info.<number>.algorithm/` or `training_info.<number>.initialization/`
//! - inside of a function, `<domain>::<name>/` or `<domain>::<name>::<overload>/`; a default of one of its attributes is
//!   `attribute_proto.<attribute>`
//!
//! Names so made that coincide refuse the model, as two equal ones do. Numbers and lists of numbers that stand directly
//! in attributes are no tensors. Sparse tensors and tensors of strings are left out, and counted in a note.
//!
//! Metadata are the properties of the model, and `onnx.ir_version`, `onnx.opset_import` and `onnx.producer`.
//!
//! What names a thing must precede it: the outputs and the type of a node its attributes, the name of an attribute its
//! value. Every writer has it so, as protobuf recommends, and the file is read once, front to back.

mod tensor;
mod walk;
pub(super) mod wire;

pub(super) use self::tensor::check_shared;
use self::walk::Walk;
use self::wire::{Field, Kind, Message, Schema};
use super::cursor::Cursor;
use crate::error::{Cause, FormatError, Result};
use crate::io::ReadAt;
use crate::tensor::Index;

/// Fields looked at to tell a model from other files.
const MAX_FIELDS: usize = 1 << 16;
/// Versions of the format that [`looks_like`] believes in. The newest is 14.
const MAX_VERSION: u64 = 100;

#[rustfmt::skip]
const MODEL: Schema = Schema("ModelProto", &[
    (1, "ir_version", Kind::Int), (2, "producer_name", Kind::Bytes), (3, "producer_version", Kind::Bytes),
    (4, "domain", Kind::Bytes), (5, "model_version", Kind::Int), (6, "doc_string", Kind::Bytes),
    (7, "graph", Kind::Bytes), (8, "opset_import", Kind::Many), (14, "metadata_props", Kind::Many),
    (20, "training_info", Kind::Many), (25, "functions", Kind::Many), (26, "configuration", Kind::Many),
]);

/// Reads the index of an ONNX model.
///
/// A tensor in another file has [`External`](crate::tensor::Storage::External) storage and a span of that file. Two such
/// tensors may share their bytes, all of them and as the same type; any other overlap is refused.
pub fn read(source: &dyn ReadAt) -> Result<Index> {
    let mut cursor = Cursor::new(source, 0..source.size(), "the file ends within the model");
    let mut walk = Walk::default();
    walk.model(Message::new(&mut cursor, &MODEL))?;
    let fail = |cause: FormatError| cause.on(source.name());
    check_shared(&walk.tensors).map_err(fail)?;
    let left_out = [(walk.strings, "of strings"), (walk.sparse, "in sparse form")];
    let notes = left_out.into_iter().filter(|(count, _)| *count > 0);
    let notes = notes.map(|(count, what)| format!("tensors {what}, left out: {count}"));
    let index = Index::new(walk.tensors, walk.metadata).map_err(|name| fail(FormatError::Duplicate(name)))?;
    Ok(index.noted(notes))
}

/// Whether a file can only be an ONNX model: whole fields of one, a version, one graph and the operators it uses.
pub(super) fn looks_like(source: &dyn ReadAt) -> bool {
    let mut cursor = Cursor::new(source, 0..source.size(), "");
    let mut model = Message::new(&mut cursor, &MODEL);
    let (mut has_version, mut has_graph, mut has_operators) = (false, false, false);
    for _ in 0..MAX_FIELDS {
        match model.next() {
            Ok(Some(Field { name: "ir_version", int, .. })) => has_version = (1..=MAX_VERSION).contains(&int),
            Ok(Some(Field { name: "graph", .. })) => has_graph = true,
            Ok(Some(Field { name: "opset_import", .. })) => has_operators = true,
            Ok(Some(_)) => {}
            Ok(None) => return has_version && has_graph && has_operators,
            Err(_) => return false,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::walk::{MAX_DEPTH, MAX_INDEX};
    use super::wire::tests::{bytes, int};
    use super::*;
    use crate::error::Error;
    use crate::format::{Format, detect};
    use crate::io::SliceAt;
    use crate::tensor::Storage;

    /// A model of one graph.
    pub(super) fn model(graph: impl AsRef<[u8]>) -> Vec<u8> {
        [int(1, 10), bytes(8, int(2, 21)), bytes(7, graph)].concat()
    }

    /// A tensor of two floats.
    fn pair(name: &str) -> Vec<u8> {
        [int(1, 2), int(2, 1), bytes(8, name), bytes(9, [1; 8])].concat()
    }

    fn node(output: &str, kind: &str, attribute: impl AsRef<[u8]>) -> Vec<u8> {
        bytes(1, [bytes(2, output), bytes(4, kind), bytes(5, attribute)].concat())
    }

    fn attribute(name: &str, field: u64, kind: u64, value: impl AsRef<[u8]>) -> Vec<u8> {
        [bytes(1, name), bytes(field, value), int(20, kind)].concat()
    }

    fn constant(output: &str) -> Vec<u8> {
        node(output, "Constant", attribute("value", 5, 4, pair("")))
    }

    /// A graph with a constant `c` in the last of so many graphs, each in the one before.
    fn nest(depth: usize) -> Vec<u8> {
        (0..depth).fold(constant("c"), |graph, _| node("o", "If", attribute("b", 6, 5, graph)))
    }

    #[track_caller]
    pub(super) fn index(model: &[u8]) -> Index {
        let index = read(&SliceAt::new(model)).unwrap();
        assert_eq!(detect(&SliceAt::new(model)).unwrap(), Some(Format::Onnx));
        index
    }

    #[track_caller]
    pub(super) fn cause(model: &[u8]) -> FormatError {
        match read(&SliceAt::new(model)) {
            Err(Error::Format { cause, .. }) => cause,
            other => panic!("{other:?}"),
        }
    }

    fn names(model: &[u8]) -> Vec<String> {
        index(model).tensors().iter().map(|tensor| tensor.name.clone()).collect()
    }

    #[test]
    fn tensors_are_called_after_where_they_are() {
        let two = [bytes(1, "l"), bytes(10, pair("")), bytes(10, pair("")), int(20, 9)].concat();
        let graphs = [bytes(1, "gs"), bytes(11, constant("c")), bytes(11, bytes(5, pair("w"))), int(20, 10)].concat();
        let graph = [
            bytes(5, pair("w")),
            constant("c"),
            node("n", "Other", attribute("value", 5, 4, pair(""))),
            node("n2", "Other", two),
            node("n3", "Other", graphs),
            bytes(1, bytes(5, attribute("a", 5, 4, pair("")))),
            nest(2),
            bytes(15, "sparse"),
            bytes(5, [int(2, 8), bytes(6, "a"), bytes(6, "b"), bytes(8, "words")].concat()),
        ];
        let mut file = model(graph.concat());
        file.extend(bytes(20, [bytes(1, bytes(5, pair("w"))), bytes(2, constant("c"))].concat()));
        let function = [bytes(1, "f"), bytes(7, &constant("c")[2..]), bytes(10, "d")];
        file.extend(bytes(25, function.concat()));
        let function = [bytes(1, "f"), bytes(10, "d"), bytes(11, attribute("a", 5, 4, pair(""))), bytes(13, "v")];
        file.extend(bytes(25, function.concat()));
        let expected = [
            "w",
            "c",
            "n.value",
            "n2.l.0",
            "n2.l.1",
            "n3/gs/0/c",
            "n3/gs/1/w",
            "#4.a",
            "o/b/o/b/c",
            "training_info.0.initialization/w",
            "training_info.0.algorithm/c",
            "d::f/c",
            "d::f::v/attribute_proto.a",
        ];
        assert_eq!(names(&file), expected);
        assert_eq!(index(&file).notes(), ["tensors of strings, left out: 1", "tensors in sparse form, left out: 1"]);
    }

    #[test]
    fn metadata_are_the_models_and_what_made_it() {
        let property = |key: &str, value: &str| bytes(14, [bytes(1, key), bytes(2, value)].concat());
        let own = [bytes(2, "maker"), bytes(3, "2"), property("k", "v"), bytes(8, [bytes(1, "x"), int(2, 1)].concat())];
        let file = [model(""), own.concat()].concat();
        let expected = [
            ("k", "v"),
            ("onnx.ir_version", "10"),
            ("onnx.opset_import", "ai.onnx 21, x 1"),
            ("onnx.producer", "maker 2"),
        ];
        let expected = expected.map(|(key, value)| (key.to_owned(), value.to_owned()));
        assert_eq!(*index(&file).metadata(), expected.into());
        assert_eq!(cause(&[file, property("k", "w")].concat()), FormatError::Duplicate("k".into()));
        let file = [model(""), property("onnx.producer", "")].concat();
        assert_eq!(cause(&file), FormatError::Duplicate("onnx.producer".into()));
    }

    #[test]
    fn hostile_models_are_refused_each_for_its_cause() {
        let malformed = |file: &[u8]| match cause(file) {
            FormatError::MalformedHeader(problem) => problem,
            other => panic!("{other:?}"),
        };
        assert_eq!(malformed(b""), "ModelProto: it has no graph, no ir_version or no opset_import");
        assert_eq!(malformed(&int(1, 10)), "ModelProto: it has no graph, no ir_version or no opset_import");
        let silent = [int(1, 10), bytes(7, "")].concat();
        assert_eq!(malformed(&silent), "ModelProto: it has no graph, no ir_version or no opset_import");
        let long_tag = [&[0xba, 0x80, 0][..], &[0]].concat();
        assert_eq!(malformed(&long_tag), "ModelProto: a tag in more bytes than it needs");
        assert_eq!(malformed(&bytes(7, "")), "ModelProto: it has no graph, no ir_version or no opset_import");
        assert_eq!(malformed(&[model(""), bytes(7, "")].concat()), "ModelProto: graph occurs twice");
        assert_eq!(malformed(&[model(""), int(1, 10)].concat()), "ModelProto: ir_version occurs twice");
        assert_eq!(malformed(&model(int(5, 1))), "GraphProto: initializer is of the wrong wire type");

        let late = bytes(1, [bytes(5, attribute("a", 5, 4, pair(""))), bytes(2, "o")].concat());
        assert_eq!(malformed(&model(late)), "NodeProto: output comes after attribute");
        let late = bytes(1, [bytes(2, "o"), bytes(5, ""), bytes(4, "Constant")].concat());
        assert_eq!(malformed(&model(late)), "NodeProto: op_type comes after attribute");
        let kinds = "AttributeProto: it holds values of two kinds, or one before its name";
        for value in [
            [bytes(5, pair("")), bytes(1, "a")].concat(),
            [bytes(1, "a"), bytes(5, pair("")), bytes(10, pair(""))].concat(),
            [bytes(1, "a"), bytes(6, ""), int(3, 1)].concat(),
        ] {
            assert_eq!(malformed(&model(node("o", "If", value))), kinds);
        }
        let twice = [bytes(1, "a"), bytes(5, pair("")), bytes(5, pair(""))].concat();
        assert_eq!(malformed(&model(node("o", "If", twice))), "AttributeProto: t occurs twice");
        for kind in [0, 5, 15, u64::MAX] {
            let file = model(node("o", "If", attribute("a", 5, kind, pair(""))));
            assert_eq!(malformed(&file), "AttributeProto: its type is not that of its value, t");
        }
        let latin = bytes(1, bytes(4, [b'C', 0xe4]));
        assert_eq!(malformed(&model(latin)), "text is not UTF-8");
        let hostile = [bytes(1, "f"), bytes(10, "d\n")].concat();
        let file = [model(""), bytes(25, hostile)].concat();
        assert_eq!(malformed(&file), "FunctionProto: its name holds control characters");
    }

    #[test]
    fn equal_names_are_refused_and_those_in_other_graphs_are_others() {
        let twice = |name: &str, one: Vec<u8>, two: Vec<u8>| {
            assert_eq!(cause(&model([one, two].concat())), FormatError::Duplicate(name.into()));
        };
        twice("w", bytes(5, pair("w")), bytes(5, pair("w")));
        twice("w", bytes(5, pair("w")), constant("w"));
        twice("o/b/c", nest(1), nest(1));
        twice("o/b/c", nest(1), bytes(5, pair("o/b/c")));
        assert_eq!(names(&model([nest(0), nest(1), nest(2)].concat())), ["c", "o/b/c", "o/b/o/b/c"]);
    }

    #[test]
    fn depth_and_size_are_bounded() {
        assert_eq!(names(&model(nest(MAX_DEPTH))).len(), 1);
        let deep = FormatError::MalformedHeader("GraphProto: graphs are nested too deeply".into());
        for depth in [MAX_DEPTH + 1, 10_000] {
            assert_eq!(cause(&model(nest(depth))), deep);
        }
        for empty in [[1 << 3 | 2, 0], [13 << 3 | 2, 0], [15 << 3 | 2, 0]] {
            assert!(names(&model(empty.repeat(100_000))).is_empty()); // nodes, inputs, sparse tensors
        }
        let many: Vec<u8> = (0..100_000).flat_map(|i| constant(&format!("n{i}"))).collect();
        assert_eq!(names(&model(many)).len(), 100_000);
        let long = "x".repeat(1 << 20); // a path that a hundred tensors would share, in few bytes
        let inner: Vec<u8> = (0..100).flat_map(|i| constant(&format!("n{i}"))).collect();
        let file = model(node(&long, "If", attribute("b", 6, 5, inner)));
        assert!(matches!(cause(&file), FormatError::HeaderTooLarge { limit: MAX_INDEX, .. }));
        let huge = model(bytes(5, bytes(8, vec![b'x'; wire::MAX_TEXT as usize + 1])));
        assert!(matches!(cause(&huge), FormatError::HeaderTooLarge { limit: wire::MAX_TEXT, .. }));
    }

    #[test]
    fn only_models_look_like_one() {
        let looks = |bytes: &[u8]| looks_like(&SliceAt::new(bytes));
        let whole = model(bytes(5, pair("w")));
        assert!(looks(&whole) && looks(&[&whole[..], &bytes(14, "broken"), &int(99, 1)].concat()));
        for text in ["", "\n", "{\"a\": 1}", "# text", "hello world", "\x08", "<html>", "import onnx\n", "\u{feff}a,b"]
        {
            assert!(!looks(text.as_bytes()), "{text}");
        }
        for end in 0..whole.len() {
            assert!(!looks(&whole[..end]), "{end}");
        }
        let (version, operators, graph) = (int(1, 10), bytes(8, ""), bytes(7, ""));
        assert!(looks(&[&graph[..], &operators, &version].concat()));
        for parts in [[&version, &operators, &operators], [&version, &graph, &graph], [&operators, &graph, &operators]]
        {
            assert!(!looks(&parts.map(|part| part.as_slice()).concat()));
        }
        assert!(!looks(&[int(1, 101), operators.clone(), graph.clone()].concat()));
        assert!(!looks(&[int(1, 0), operators, graph].concat()));
        assert!(!looks(&[whole, bytes(14, "").repeat(MAX_FIELDS)].concat()));
    }

    #[test]
    fn every_truncation_and_every_change_is_refused_or_reads_within_the_file() {
        let packed = [int(1, 3), int(2, 6), bytes(5, [1, 2, 3]), bytes(8, "p")].concat();
        let outside = [bytes(1, "location"), bytes(2, "f")].concat();
        let outside = [int(1, 1), int(2, 1), bytes(8, "e"), bytes(13, outside), int(14, 1)].concat();
        let graph = [bytes(5, pair("w")), bytes(5, packed), bytes(5, outside), nest(2)].concat();
        let whole = [model(graph), bytes(14, [bytes(1, "k"), bytes(2, "v")].concat())].concat();
        assert_eq!(index(&whole).tensors().len(), 4);
        for end in 0..whole.len() {
            let is_refused = read(&SliceAt::new(&whole[..end])).is_err();
            assert!(is_refused || end == whole.len() - 8, "{end}"); // without the last field it is a model, too
        }
        let flips = (0..whole.len() * 8).map(|i| {
            let mut changed = whole.clone();
            changed[i / 8] ^= 1 << (i % 8);
            changed
        });
        let splices = (0..whole.len()).flat_map(|i| {
            let others = [&[][..], &[0], &[0x7f], &[0x80], &[0xff], &whole[i..], &whole[i.saturating_sub(9)..=i]];
            let (before, after) = (&whole[..i], &whole[i + 1..]);
            others.map(|other| [before, other, after].concat())
        });
        for changed in flips.chain(splices) {
            let source = SliceAt::new(&changed);
            looks_like(&source);
            for tensor in read(&source).iter().flat_map(Index::tensors) {
                let is_inside = !matches!(tensor.storage, Storage::External(_));
                assert!(!is_inside || tensor.span.end <= source.size());
                assert_eq!(super::super::load(&source, tensor).is_ok(), is_inside);
            }
        }
    }
}
