//! Streams and exit status: results on stdout, errors and hints on stderr.

use std::io::{self, Write};
use std::path::Path;

use serde_json::{Value, json};
use weightmark::Error;
use weightmark::error::{Code, EncryptionError, KeyError, Printable, VerifyError};

/// Why a command ends without success.
pub(crate) enum Failure {
    /// The library says why.
    Error(Error),
    /// The question was answered: no.
    No,
    /// What the user asked for makes no sense.
    Usage(String),
    /// Whoever reads our output has stopped.
    BrokenPipe,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

pub(crate) type Outcome = Result<(), Failure>;

impl Failure {
    pub(crate) fn status(&self) -> u8 {
        match self {
            Self::BrokenPipe => 0,
            Self::No => 1,
            Self::Usage(_) => 2,
            Self::Error(error) => match error.code() {
                Code::Refused => 1,
                Code::Misuse => 2,
                Code::Key => 4,
                Code::Cancelled => 130,
                _ => 3,
            },
        }
    }

    pub(crate) fn report(&self) {
        let (message, hint) = match self {
            Self::No | Self::BrokenPipe => return,
            Self::Usage(problem) => (problem.clone(), None),
            Self::Error(error) => (error.to_string(), hint(error)),
        };
        let bold = anstyle::AnsiColor::Red.on_default().bold();
        let mut stderr = anstream::stderr();
        let _ = writeln!(stderr, "weightmark: {bold}error{bold:#}: {}", Printable(&message)); // nowhere left to say that stderr is gone
        if let Some(hint) = hint {
            let _ = writeln!(stderr, "hint: {hint}");
        }
    }
}

/// Prints a result: `object` with its schema on one line under `--json`, otherwise `text`.
pub(crate) fn print(json: bool, verb: &str, object: Value, text: &str) -> Outcome {
    let mut stdout = anstream::stdout();
    let written = if json {
        let mut object = object;
        if let Value::Object(fields) = &mut object {
            fields.insert("schema".into(), json!(format!("weightmark/{verb}/1")));
        }
        writeln!(stdout, "{object}")
    } else {
        stdout.write_all(text.as_bytes())
    };
    written.and_then(|()| stdout.flush()).map_err(|e| match e.kind() {
        io::ErrorKind::BrokenPipe => Failure::BrokenPipe,
        _ => Failure::Error(Error::Io { op: "write", name: "stdout".into(), source: e }),
    })
}

/// A path for people: what could move the cursor or forge a line is escaped.
pub(crate) fn shown(path: &Path) -> String {
    Printable(&path.display().to_string()).to_string()
}

/// Bytes in hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whether a path stands for stdin or stdout.
pub(crate) fn is_stream(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// A recipient for people: its type, and its id where that says more.
pub(crate) fn recipient((kind, id): &(String, String)) -> String {
    let text = if kind == id { kind.clone() } else { format!("{kind} {id}") };
    Printable(&text).to_string()
}

/// A size for people: `86.7 MiB`.
pub(crate) fn size(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", units[unit]) }
}

fn hint(error: &Error) -> Option<&'static str> {
    let interrupted = |name: &str| Path::new(&format!("{name}.rewrap")).exists();
    Some(match error {
        Error::Encryption { name, .. } | Error::Key { name, .. } if interrupted(name) => {
            "a rewrap of it was interrupted: `weightmark rewrap FILE -i IDENTITY` ends it"
        }
        Error::Encryption { cause: EncryptionError::ClosedFile { .. }, .. } => {
            "take what is open to you with --partial, or ask the publisher for the rest"
        }
        Error::Key { cause: KeyError::Wanted, .. } => "name your identity file with --identity",
        Error::Key { cause: KeyError::Locked, .. } => "name a file that holds it with --key-passphrase-file",
        Error::Key { cause: KeyError::NoMatch, .. } => "ask the publisher to encrypt it to your recipient as well",
        Error::Verify { cause: VerifyError::ExtraFile { .. }, .. } => {
            "remove it, or tolerate it with --ignore-paths if you trust it"
        }
        Error::Verify { cause: VerifyError::NoSignature { .. }, .. } => "name the signature with --signature",
        Error::Encryption { cause: EncryptionError::Commitment, .. } => {
            "was the file renamed, or taken from another model?"
        }
        Error::Io { source, .. } => match source.kind() {
            io::ErrorKind::AlreadyExists => "outputs are never overwritten: remove it, or choose another name",
            _ => return None,
        },
        _ => return None,
    })
}
