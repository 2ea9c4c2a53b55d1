//! `inspect`: what is it? No key needed, nothing is trusted.

use std::fmt::Write;

use serde_json::{Value, json};
use weightmark::encryption::{self, Inspection, KEYS_FILE};
use weightmark::error::{FormatError, Printable, VerifyError};
use weightmark::format::ModelIndex;
use weightmark::io::{Tree, tree};
use weightmark::signing::Policy;
use weightmark::{Error, Result};

use crate::cli::Inspect;
use crate::output::{Outcome, print, recipient, size};

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
        let tensors = index.file(&entry.path);
        line(&mut text, format_args!("{:>10}  {}", size(entry.size), Printable(&entry.path)));
        let mut listed: Vec<Value> = Vec::new();
        for tensor in tensors.iter().flat_map(|file| file.index.tensors()) {
            let (dtype, shape) = (tensor.dtype.to_string(), &tensor.shape);
            line(
                &mut text,
                format_args!("{:>10}    {dtype:<5} {shape:?}  {}", size(tensor.size()), Printable(&tensor.name)),
            );
            listed.push(json!({"name": tensor.name, "dtype": dtype, "shape": shape, "bytes": tensor.size()}));
        }
        let mut file = json!({"path": entry.path, "bytes": entry.size});
        if let (Some(found), Some(fields)) = (tensors, file.as_object_mut()) {
            fields.insert("format".into(), json!(found.format.name()));
            fields.insert("metadata".into(), json!(found.index.metadata()));
            fields.insert("tensors".into(), json!(listed));
        }
        files.push(file);
    }
    let hint = match Policy::find(tree) {
        Ok(bundle) => Some(bundle.key_hint().unwrap_or_default().to_owned()),
        Err(Error::Verify { cause: VerifyError::NoSignature { .. }, .. }) => None,
        Err(_) => Some("unreadable".to_owned()),
    };
    if let Some(hint) = &hint {
        line(&mut text, format_args!("signature: claims to be by key {} (not verified)", Printable(hint)));
    }
    print(json, "inspect", json!({"encrypted": false, "files": files, "signature": hint}), &text)
}

fn line(text: &mut String, line: std::fmt::Arguments<'_>) {
    let _ = writeln!(text, "{line}"); // a String takes everything
}
