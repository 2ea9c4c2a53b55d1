//! `inspect`: what is it? No key needed, nothing is trusted.

use std::fmt::Write;

use weightmark::encryption::Inspection;
use weightmark::error::{FormatError, Printable};
use weightmark::format::ModelFile;
use weightmark::io::{Entry, tree};
use weightmark::model::{self, Inspected, Plain};

use crate::cli::Inspect;
use crate::outline;
use crate::output::{Outcome, print, recipient, size};

/// Entries of metadata, and characters of one, shown to people.
const MAX_METADATA: usize = 32;
const MAX_VALUE: usize = 72;
/// Before what belongs to a file.
const INDENT: &str = "            ";

pub(crate) fn run(args: &Inspect, json: bool) -> Outcome {
    let seen = model::inspect(&*tree::open(&args.input)?)?;
    let text = match &seen {
        _ if json => String::new(),
        Inspected::Encrypted(inspection) => encrypted(inspection),
        Inspected::Plain(files) => plain(files),
        _ => String::new(),
    };
    print(json, "inspect", seen.to_json(), &text)
}

fn encrypted(inspection: &Inspection) -> String {
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
    text
}

fn plain(files: &Plain) -> String {
    let (mut text, index) = (String::new(), &files.index);
    for entry in &files.entries {
        describe(&mut text, entry, index.file(&entry.path), index.refusal(&entry.path));
    }
    for (_, claims) in &files.signatures {
        line(&mut text, format_args!("signature:  {} (not verified)", Printable(claims)));
    }
    text
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

fn line(text: &mut String, line: std::fmt::Arguments<'_>) {
    let _ = writeln!(text, "{line}"); // a String takes everything
}
