//! `decrypt`: back to plaintext.

use std::fmt::Write;
use std::io;

use serde_json::json;
use weightmark::error::Printable;
use weightmark::io::atomic::{Access, AtomicFile};
use weightmark::keys::Identity;

use crate::cli::Decrypt;
use crate::keys;
use crate::output::{Failure, Outcome, is_stream, print, shown};
use crate::progress::Bars;

pub(crate) fn run(args: &Decrypt, json: bool, bars: &Bars) -> Outcome {
    let identities = keys::identities(&args.opening)?;
    let identities: Vec<&dyn Identity> = identities.iter().map(|identity| &**identity).collect();
    let decryptor = keys::decryptor(&args.opening, &identities);
    let closed = match (is_stream(&args.input), is_stream(&args.output)) {
        (_, true) if json => {
            return Err(Failure::Usage("--json needs stdout for itself: give --output a file".into()));
        }
        (true, true) => return Ok(decryptor.decrypt_stream(io::stdin(), io::stdout(), bars)?),
        (false, true) => return Ok(decryptor.decrypt_to(&args.input, io::stdout(), bars)?),
        (true, false) => {
            let mut output = AtomicFile::create(&args.output, Access::Private)?;
            decryptor.decrypt_stream(io::stdin(), &mut output, bars)?;
            output.commit()?;
            Vec::new()
        }
        (false, false) => decryptor.decrypt(&args.input, &args.output, bars)?,
    };
    let mut text = format!("{}: decrypted\n", shown(&args.output));
    for path in &closed {
        let _ = writeln!(text, "left out, encrypted for others: {}", Printable(path)); // a String takes everything
    }
    print(json, "decrypt", json!({"output": args.output.display().to_string(), "closed": closed}), &text)
}
