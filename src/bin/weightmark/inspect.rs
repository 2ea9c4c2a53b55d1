//! `inspect`: what is it? No key needed, nothing is trusted.

use std::fmt::Write;

use serde_json::{Value, json};
use weightmark::encryption::{self, Inspection, KEYS_FILE};
use weightmark::error::{FormatError, Printable};
use weightmark::format::{ModelFile, ModelIndex, is_signature};
use weightmark::io::{Entry, Tree, tree};
use weightmark::signing::Bundle;
use weightmark::tensor::Storage;
use weightmark::{Error, Result};

use crate::cli::Inspect;
use crate::outline;
use crate::output::{Outcome, print, recipient, size};

/// Entries of metadata, and characters of one, shown to people.
const MAX_METADATA: usize = 32;
const MAX_VALUE: usize = 72;
/// Before what belongs to a file.
const INDENT: &str = "            ";

pub(crate) fn run(args: &Inspect, json: bool) -> Outcome {
    let tree = tree::open(&args.input)?;
    match encrypted(&*tree)? {
        Some(inspection) => report_encrypted(&inspection, json),
        None => report_plain(&*tree, json),
    }
}

fn encrypted(tree: &dyn Tree) -> Result<Option<Inspection>> {
    let envelope = if tree.is_single_file() {
        tree.entries().first()
    } else {
        tree.entries().iter().find(|e| e.path == KEYS_FILE)
    };
    envelope.map_or(Ok(None), |entry| encryption::inspect(&*tree.open(&entry.path)?))
}

fn report_encrypted(inspection: &Inspection, json: bool) -> Outcome {
    let mut text = format!("encrypted, cobblestone-256, context {:?}\n", inspection.context);
    for group in &inspection.groups {
        if !group.path.is_empty() {
            line(&mut text, format_args!("{}:", Printable(&group.path)));
        }
        for named in &group.recipients {
            line(&mut text, format_args!("recipient  {}", recipient(named)));
        }
        for (path, bytes) in &group.files {
            line(&mut text, format_args!("{:>10}  {}", size(*bytes), Printable(path)));
        }
    }
    for file in &inspection.public {
        line(&mut text, format_args!("tensors of {}, as the publisher lists them:", Printable(&file.path)));
        for tensor in &file.tensors {
            let (dtype, name) = (Printable(&tensor.dtype).to_string(), Printable(&tensor.name));
            line(&mut text, format_args!("            {dtype:<5} {:?}  {name}", tensor.shape));
        }
    }
    text.push_str("(read without a key: not authenticated)\n");
    print(json, "inspect", json!({"encrypted": true, "envelope": inspection}), &text)
}

fn report_plain(tree: &dyn Tree, json: bool) -> Outcome {
    let index = ModelIndex::read(tree)?;
    if tree.is_single_file() && index.files().is_empty() {
        return Err(Error::Format { name: tree.name().into(), cause: FormatError::Unknown }.into());
    }
    let mut text = String::new();
    let mut files = Vec::new();
    for entry in tree.entries() {
        let (found, refused) = (index.file(&entry.path), index.refusal(&entry.path));
        if json {
            files.push(object(entry, found, refused));
        } else {
            describe(&mut text, entry, found, refused);
        }
    }
    let mut signatures = Vec::new();
    for entry in tree.entries().iter().filter(|entry| is_signature(&entry.path) && !tree.is_single_file()) {
        let bundle = tree.open(&entry.path).and_then(|source| Bundle::read_from(&*source));
        let claims = bundle.map_or_else(|_| "unreadable".into(), |bundle| bundle.claims());
        line(&mut text, format_args!("signature:  {} (not verified)", Printable(&claims)));
        signatures.push(json!({"path": entry.path, "claims": claims}));
    }
    print(json, "inspect", json!({"encrypted": false, "files": files, "signatures": signatures}), &text)
}

/// One file for people: what it is, its metadata and its tensors.
fn describe(text: &mut String, entry: &Entry, found: Option<&ModelFile>, refused: Option<&FormatError>) {
    line(text, format_args!("{:>10}  {}{}", size(entry.size), Printable(&entry.path), summary(found)));
    if let Some(cause) = refused {
        line(text, format_args!("{INDENT}left closed: {}", Printable(&cause.to_string())));
    }
    let Some(ModelFile { index, .. }) = found else { return };
    for note in index.notes() {
        line(text, format_args!("{INDENT}note: {}", Printable(note)));
    }
    let width = index.metadata().keys().take(MAX_METADATA).map(|key| key.chars().count()).max().unwrap_or(0).min(48);
    for (key, value) in index.metadata().iter().take(MAX_METADATA) {
        let shown: String = value.chars().take(MAX_VALUE).collect();
        let more = if shown.len() < value.len() { ".." } else { "" };
        let key = Printable(key).to_string();
        line(text, format_args!("{INDENT}{key:width$}  {}{more}", Printable(&shown)));
    }
    if index.metadata().len() > MAX_METADATA {
        line(text, format_args!("{INDENT}and {} more", index.metadata().len() - MAX_METADATA));
    }
    text.push_str(&outline::text(&outline::lines(index), INDENT));
}

/// What a file is, in a few words.
fn summary(found: Option<&ModelFile>) -> String {
    let Some(ModelFile { format, index, .. }) = found else { return String::new() };
    let elements: u64 = index.tensors().iter().fold(0, |sum, tensor| sum.saturating_add(tensor.elements()));
    let noun = if index.tensors().len() == 1 { "tensor" } else { "tensors" };
    format!("  ({format}, {} {noun}, {elements} elements)", index.tensors().len())
}

/// One file for programs.
fn object(entry: &Entry, found: Option<&ModelFile>, refused: Option<&FormatError>) -> Value {
    let mut file = json!({"path": entry.path, "bytes": entry.size});
    let Some(fields) = file.as_object_mut() else { return file };
    if let Some(cause) = refused {
        fields.insert("refused".into(), json!({"code": cause.word(), "message": cause.to_string()}));
    }
    if let Some(ModelFile { format, index, .. }) = found {
        let tensors = index.tensors().iter().map(|tensor| {
            let (dtype, shape, bytes) = (tensor.dtype.name(), &tensor.shape, tensor.size());
            let storage = match &tensor.storage {
                Storage::Plain => json!("plain"),
                Storage::Strided(strides) => json!({"strides": strides}),
                Storage::External(path) => json!({"external": path}),
                Storage::Deflated { .. } => json!("deflated"),
                _ => json!("varints"),
            };
            let span = [tensor.span.start, tensor.span.end];
            json!({"name": tensor.name, "dtype": dtype, "shape": shape, "bytes": bytes, "span": span, "storage": storage})
        });
        fields.insert("format".into(), json!(format.name()));
        fields.insert("metadata".into(), json!(index.metadata()));
        fields.insert("notes".into(), json!(index.notes()));
        fields.insert("tensors".into(), tensors.collect());
    }
    file
}

fn line(text: &mut String, line: std::fmt::Arguments<'_>) {
    let _ = writeln!(text, "{line}"); // a String takes everything
}
