//! `rekey`: the same content under a new key.

use weightmark::encryption::Decryptor;
use weightmark::keys::Identity;

use crate::cli::Rekey;
use crate::output::Outcome;
use crate::progress::Bars;
use crate::{encrypt, keys};

pub(crate) fn run(args: &Rekey, json: bool, bars: &Bars) -> Outcome {
    let identities = keys::identities(&args.opening)?;
    let identities: Vec<&dyn Identity> = identities.iter().map(|identity| &**identity).collect();
    let mut decryptor = Decryptor::new(&identities);
    if let Some(context) = &args.opening.context {
        decryptor = decryptor.expect_context(context);
    }
    let mut encryptor = keys::to(&args.recipients, &args.groups)?;
    if let Some(context) = &args.new_context {
        encryptor = encryptor.context(context);
    }
    let seen = encryptor.rekey(&args.input, &args.output, &decryptor, bars)?;
    encrypt::report(&seen, &args.output, json)
}
