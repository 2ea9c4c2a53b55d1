//! `rekey`: the same content under a new key.

use weightmark::keys::Identity;

use crate::cli::Rekey;
use crate::output::{Failure, Outcome};
use crate::progress::Bars;
use crate::{encrypt, keys};

pub(crate) fn run(args: &Rekey, json: bool, bars: &Bars) -> Outcome {
    let identities = keys::identities(&args.opening)?;
    let identities: Vec<&dyn Identity> = identities.iter().map(|identity| &**identity).collect();
    if args.opening.partial {
        return Err(Failure::Usage("--partial would leave files out of the new one".into()));
    }
    let decryptor = keys::decryptor(&args.opening, &identities);
    let mut encryptor = keys::to(&args.recipients, &args.groups)?;
    if let Some(context) = &args.new_context {
        encryptor = encryptor.context(context);
    }
    let seen = encryptor.rekey(&args.input, &args.output, &decryptor, bars)?;
    encrypt::report("rekey", &seen, &args.output, json)
}
