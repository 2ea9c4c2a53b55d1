//! The tensors of a file as an outline: names split at dots, layers that are alike told once.

use weightmark::error::Printable;
use weightmark::tensor::{Index, Storage, TensorInfo};

use crate::output::size;

/// Parts that a name is split into at most: the rest is one part.
const MAX_DEPTH: usize = 12;
/// Names wider than this are not lined up with the others.
const MAX_WIDTH: usize = 56;

/// One line: what is left of the name, and what is told of a tensor.
pub(crate) struct Line {
    pub(crate) label: String,
    pub(crate) facts: Option<[String; 3]>,
}

/// A name part, what follows it, and the tensor if the name ends here. Two are equal if the same is told of them.
#[derive(Default)]
struct Node<'a> {
    tensor: Option<&'a TensorInfo>,
    children: Vec<(String, Node<'a>)>,
}

impl PartialEq for Node<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.tensor.map(facts) == other.tensor.map(facts) && self.children == other.children
    }
}

/// The outline of all tensors of a file, in the order of their names, numbers in that of their values.
pub(crate) fn lines(index: &Index) -> Vec<Line> {
    let mut tensors: Vec<&TensorInfo> = index.tensors().iter().collect();
    tensors.sort_by(|a, b| parts(a).map(order).cmp(parts(b).map(order)));
    let mut root = Node::default();
    for tensor in tensors {
        root.insert(parts(tensor), tensor);
    }
    let mut lines = Vec::new();
    root.render("", &mut lines);
    lines
}

/// The lines as text, each after `indent`, facts in columns.
pub(crate) fn text(lines: &[Line], indent: &str) -> String {
    let chars = |text: &str| text.chars().count();
    let widest =
        |of: &dyn Fn(&Line) -> usize, most: usize| lines.iter().map(of).filter(|w| *w <= most).max().unwrap_or(0);
    let fact = |line: &Line, i: usize| line.facts.as_ref().map_or(0, |facts| chars(&facts[i]));
    let label = widest(&|line| chars(&line.label), MAX_WIDTH);
    let [dtype, shape, bytes] = [0, 1, 2].map(|i| widest(&|line| fact(line, i), MAX_WIDTH));
    let mut text = String::new();
    for line in lines {
        let row = match &line.facts {
            Some([d, s, b]) => format!("{:label$}  {d:dtype$}  {s:shape$}  {b:>bytes$}", line.label),
            None => line.label.clone(),
        };
        text += &format!("{indent}{row}\n");
    }
    text
}

impl<'a> Node<'a> {
    fn insert<'n>(&mut self, mut parts: impl Iterator<Item = &'n str>, tensor: &'a TensorInfo) {
        let Some(part) = parts.next() else {
            self.tensor = Some(tensor);
            return;
        };
        if self.children.last().is_none_or(|(name, _)| name != part) {
            self.children.push((part.to_owned(), Node::default()));
        }
        if let Some((_, child)) = self.children.last_mut() {
            child.insert(parts, tensor);
        }
    }

    /// Appends the lines of all that is below, `margin` before each.
    fn render(&self, margin: &str, lines: &mut Vec<Line>) {
        let mut groups = self.groups().peekable();
        while let Some((mut label, mut node)) = groups.next() {
            while node.tensor.is_none() {
                let mut below = node.groups();
                let (Some((name, only)), None) = (below.next(), below.next()) else { break };
                label += &format!(".{name}");
                node = only;
            }
            let (branch, below) = if groups.peek().is_none() { ("└─ ", "   ") } else { ("├─ ", "│  ") };
            lines.push(Line { label: format!("{margin}{branch}{label}"), facts: node.tensor.map(facts) });
            node.render(&format!("{margin}{below}"), lines);
        }
    }

    /// What is below, runs of numbers with the same below them as one.
    fn groups(&self) -> impl Iterator<Item = (String, &Self)> {
        let mut rest = &self.children[..];
        std::iter::from_fn(move || {
            let (first, node) = rest.first()?;
            let alike = rest.iter().zip(0..).take_while(|((name, other), i)| {
                number(first).is_some_and(|n| number(name) == n.checked_add(*i)) && other == node
            });
            let (run, others) = rest.split_at(alike.count().max(1));
            rest = others;
            let label = match run {
                [_, .., (last, _)] => format!("{{{first}..{last}}}"),
                _ => Printable(first).to_string(),
            };
            Some((label, node))
        })
    }
}

fn parts(tensor: &TensorInfo) -> impl Iterator<Item = &str> {
    tensor.name.splitn(MAX_DEPTH, '.')
}

/// What names are ordered by: numbers first.
fn order(part: &str) -> (bool, Option<u64>, &str) {
    (number(part).is_none(), number(part), part)
}

/// A name that is a number in its usual form.
fn number(name: &str) -> Option<u64> {
    name.parse().ok().filter(|number: &u64| number.to_string() == name)
}

/// Type, shape and size, and how it is stored if that is not plain.
fn facts(tensor: &TensorInfo) -> [String; 3] {
    let how = match &tensor.storage {
        Storage::Strided(_) => " strided".to_owned(),
        Storage::External(path) => format!(" in {}", Printable(path)),
        Storage::Deflated { .. } => " deflated".to_owned(),
        Storage::Varints => " in varints".to_owned(),
        _ => String::new(),
    };
    [tensor.dtype.to_string(), format!("{:?}", tensor.shape), size(tensor.size()) + &how]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use weightmark::tensor::Dtype;

    use super::*;

    fn outline(tensors: &[(&str, u64)]) -> String {
        let mut end = 0;
        let infos = tensors.iter().map(|(name, elements)| {
            let start = end;
            end += elements * 4;
            TensorInfo::new(*name, Dtype::F32, vec![*elements], start..end)
        });
        text(&lines(&Index::new(infos.collect(), BTreeMap::new()).unwrap()), "")
    }

    #[test]
    fn layers_that_are_alike_are_told_once() {
        let text = outline(&[
            ("embed.weight", 256),
            ("layers.0.up.weight", 8),
            ("layers.0.up.bias", 2),
            ("layers.1.up.weight", 8),
            ("layers.1.up.bias", 2),
            ("layers.2.up.weight", 16),
            ("layers.10.up.weight", 16),
            ("layers.3.up.weight", 16),
            ("head", 1),
        ]);
        let expected = "\
├─ embed.weight         F32  [256]  1.0 KiB
├─ head                 F32  [1]        4 B
└─ layers
   ├─ {0..1}.up
   │  ├─ bias           F32  [2]        8 B
   │  └─ weight         F32  [8]       32 B
   ├─ {2..3}.up.weight  F32  [16]      64 B
   └─ 10.up.weight      F32  [16]      64 B
";
        assert_eq!(text, expected);
    }

    #[test]
    fn hostile_names_cost_no_more_than_others() {
        let dots = ".".repeat(100_000);
        assert_eq!(outline(&[(&dots, 1)]).lines().count(), 1);
        assert!(outline(&[("a\u{202e}b.01", 1), ("a\u{202e}b.02", 1)]).contains("a\\u{202e}b"));
    }
}
