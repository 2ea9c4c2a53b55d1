//! `encrypt`: to recipients given as text or file.

use std::path::Path;

use serde_json::json;
use weightmark::Error;
use weightmark::encryption::Encryptor;
use weightmark::keys::XWingRecipient;

use crate::cli::{Encrypt, Recipients};
use crate::output::{Failure, Outcome, print, shown};
use crate::progress::Bars;

pub(crate) fn run(args: &Encrypt, json: bool, bars: &Bars) -> Outcome {
    let recipients = recipients(&args.recipients)?;
    let ids: Vec<_> = recipients.iter().map(XWingRecipient::id).collect();
    Encryptor::to(recipients).context(&args.context).encrypt_with(&args.input, &args.output, bars)?;
    let output = args.output.display().to_string();
    let text = format!("{}: encrypted to {}\n", shown(&args.output), ids.join(", "));
    print(json, "encrypt", json!({"output": output, "context": args.context, "recipients": ids}), &text)
}

/// Recipients by their text, or by the file that holds it.
pub(crate) fn recipients(args: &Recipients) -> Result<Vec<XWingRecipient>, Failure> {
    let parse = |text: &String| -> Result<XWingRecipient, Error> {
        if text.starts_with("wmrecipient1") && !Path::new(text).exists() {
            return text.parse().map_err(|cause| Error::Key { name: "--recipient".into(), cause });
        }
        XWingRecipient::load(text)
    };
    Ok(args.recipients.iter().map(parse).collect::<Result<_, _>>()?)
}
