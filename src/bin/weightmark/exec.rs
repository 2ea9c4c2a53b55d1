//! `exec`: a command on a decrypted model in sealed memory.

use std::os::unix::process::CommandExt;
use std::process::Command;

use weightmark::Error;
use weightmark::io::sealed::enter_namespace;

use crate::cli::Exec;
use crate::keys;
use crate::output::{Failure, Outcome};
use crate::progress::Bars;

/// What stands for the path of the model.
const PLACE: &str = "{}";

pub(crate) fn run(args: &Exec, bars: &Bars) -> Outcome {
    let Some((program, arguments)) = args.command.split_first() else {
        return Err(Failure::Usage("no command to run".into()));
    };
    if !arguments.iter().any(|argument| argument.contains(PLACE)) {
        return Err(Failure::Usage("no {} among the arguments: COMMAND would not know where the model is".into()));
    }
    if args.input.is_dir() {
        enter_namespace()?; // before the first thread: key derivation has some
    }
    let mut options = keys::options(&args.opening)?;
    if let Some(policy) = keys::policy(&args.trust)? {
        options = options.policy(policy);
    }
    options = args.allow_code.iter().fold(options, |options, path| options.danger_allow_code(path));
    if args.danger_accept_unsigned {
        options = options.danger_accept_unsigned();
    }
    let sealed = options.seal(&args.input, bars)?;
    bars.clear();
    let Some(path) = sealed.path().to_str() else {
        return Err(Failure::Usage("the path of the model is not UTF-8".into()));
    };
    let arguments = arguments.iter().map(|argument| argument.replace(PLACE, path));
    let source = Command::new(program).args(arguments).exec(); // only comes back if that failed
    Err(Error::Io { op: "run", name: program.clone(), source }.into())
}
