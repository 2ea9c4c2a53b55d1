//! `encrypt`: to recipients given as text or file, or to a passphrase.

use std::fmt::Write;
use std::io;
use std::path::Path;

use serde_json::json;
use weightmark::encryption::Inspection;
use weightmark::error::Printable;
use weightmark::format::ModelIndex;
use weightmark::io::atomic::{Access, AtomicFile};
use weightmark::io::tree;

use crate::cli::Encrypt;
use crate::keys;
use crate::output::{Failure, Outcome, is_stream, print, recipient, shown};
use crate::progress::Bars;

pub(crate) fn run(args: &Encrypt, json: bool, bars: &Bars) -> Outcome {
    let mut encryptor = keys::encryptor(&args.recipients)?.context(&args.context);
    let (from_stdin, to_stdout) = (is_stream(&args.input), is_stream(&args.output));
    if json && to_stdout {
        return Err(Failure::Usage("--json needs stdout for itself: give --output a file".into()));
    }
    if args.public_index {
        if from_stdin {
            return Err(Failure::Usage("--public-index needs a file or directory, not stdin".into()));
        }
        encryptor = encryptor.public_index(ModelIndex::read(&*tree::open(&args.input)?)?.tensors());
    }
    if !from_stdin && !to_stdout {
        let seen = encryptor.encrypt_with(&args.input, &args.output, bars)?;
        return report("encrypt", &seen, &args.output, json);
    }
    if !from_stdin {
        encryptor.encrypt_to(&args.input, io::stdout(), bars)?;
        return Ok(());
    }
    if to_stdout {
        encryptor.encrypt_stream(&args.name, io::stdin(), io::stdout(), bars)?;
        return Ok(());
    }
    let mut output = AtomicFile::create(&args.output, Access::Shared)?;
    let seen = encryptor.encrypt_stream(&args.name, io::stdin(), &mut output, bars)?;
    output.commit()?;
    report("encrypt", &seen, &args.output, json)
}

/// Says what was encrypted to whom.
pub(crate) fn report(verb: &str, seen: &Inspection, output: &Path, json: bool) -> Outcome {
    let mut text = format!("{}: encrypted\n", shown(output));
    for group in &seen.groups {
        let what = if group.path.is_empty() { String::new() } else { format!("{}: ", Printable(&group.path)) };
        let to: Vec<_> = group.recipients.iter().map(recipient).collect();
        let _ = writeln!(text, "{what}to {}", to.join(", ")); // a String takes everything
    }
    print(json, verb, json!({"output": output.display().to_string(), "envelope": seen}), &text)
}
