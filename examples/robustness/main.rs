//! Marks a model, attacks it in every way that thieves are known to, and prints what detection still finds.
//!
//! ```text
//! cargo run --release --features full --example robustness -- MODEL [--python PYTHON] [--only SUBSTRING] [--payload] [--quick]
//! ```
//!
//! MODEL is a safetensors file, a directory, or a GGUF file, of which floating-point numbers are made that its
//! quantiser could have had before it. `--python` (or `WEIGHTMARK_PYTHON`) is a Python with `gguf`, `safetensors` and
//! `xllamacpp`, for llama.cpp's own quantisers, `jax` for fine-tunes, and `tokenizers` for what suspects are still worth.
//! `--payload` writes a payload in the place of a copy's mark, and tells its bit errors. Rows that lack something are left out, which is said on stderr. `--quick` leaves out what takes long: fine-tunes,
//! large collusions and quality.

mod attacks;
mod chain;
mod collude;
mod lab;
mod merge;
mod model;
mod noise;
mod prune;
mod quality;
mod quantise;
mod random;
mod source;
#[allow(dead_code, unreachable_pub)]
mod symmetry;
mod table;
mod tuning;

use std::path::PathBuf;
use std::time::Instant;

use attacks::{Attack, Content, attacks};
use lab::Lab;
use table::{Row, head};

/// Whatever went wrong.
pub(crate) type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

/// The command line.
pub(crate) struct Options {
    /// What to mark.
    pub(crate) model: PathBuf,
    /// Which Python to ask.
    pub(crate) python: Option<PathBuf>,
    /// Only rows with this in their name.
    pub(crate) only: Option<String>,
    /// Whether a payload is written in place of the mark of a copy.
    pub(crate) payload: bool,
    /// Without what takes long.
    pub(crate) quick: bool,
}

fn main() -> Result<()> {
    let options = Options::parse()?;
    let home = tempfile::tempdir()?;
    let lab = Lab::new(&options, home.path())?;
    eprintln!(
        "{}: {} weights in {} tensors, strength {:.5}, changed by {:.3} %",
        options.model.display(),
        lab.embedded.weights,
        lab.embedded.tensors,
        lab.embedded.strength,
        100.0 * lab.embedded.relative_distortion
    );
    println!("{}", head());
    let is_wanted = |attack: &Attack| {
        let is_named = options.only.as_ref().is_none_or(|only| attack.name.contains(only));
        is_named && !(options.quick && attack.is_slow) && !(options.payload && attack.leaked > 1)
    };
    for attack in attacks(&lab).into_iter().filter(is_wanted) {
        eprintln!("{}", attack.name);
        let Some(content) = (attack.make)(&lab)? else {
            eprintln!("{}: left out, something it needs is not there", attack.name);
            continue;
        };
        let row = examined(&lab, attack, content, options.quick)?;
        println!("{}", row.line(lab.payload));
    }
    println!("\n    {}", std::env::args().collect::<Vec<_>>().join(" "));
    Ok(())
}

/// Writes a suspect, and looks at the file.
fn examined(lab: &Lab, attack: Attack, content: Content, quick: bool) -> Result<Row> {
    let (path, change) = match content {
        Content::Weights(weights) => {
            let path = lab.path("suspect.safetensors");
            model::save(&weights, &path)?;
            (path, model::relative_change(&lab.marked, &weights))
        }
        Content::File(path, change) => (path, change),
    };
    let partner = attack.partner.map(|make| {
        let path = lab.path("partner.safetensors");
        model::save(&make(&lab.marked), &path).map(|()| path)
    });
    let partner = partner.transpose()?;
    let clock = Instant::now();
    let evidence = lab.examine(&path, partner.as_deref()).map_err(|cause| cause.to_string());
    let seconds = clock.elapsed().as_secs_f64();
    let quality = if quick { None } else { quality::of(lab, &path)? };
    for path in partner.into_iter().chain((path != lab.plain()).then_some(path)) {
        std::fs::remove_file(path)?;
    }
    Ok(Row { attack: attack.name, change, evidence, leaked: attack.leaked, quality, seconds })
}

impl Options {
    fn parse() -> Result<Self> {
        let usage = "usage: robustness MODEL [--python PYTHON] [--only SUBSTRING] [--payload] [--quick]";
        let mut python = std::env::var_os("WEIGHTMARK_PYTHON").map(PathBuf::from);
        let (mut model, mut only, mut payload, mut quick) = (None, None, false, false);
        let mut arguments = std::env::args_os().skip(1);
        while let Some(argument) = arguments.next() {
            match argument.to_str() {
                Some("--python") => python = Some(arguments.next().ok_or(usage)?.into()),
                Some("--only") => only = Some(arguments.next().and_then(|only| only.into_string().ok()).ok_or(usage)?),
                Some("--payload") => payload = true,
                Some("--quick") => quick = true,
                Some(option) if option.starts_with('-') => return Err(usage.into()),
                _ => model = Some(argument.into()),
            }
        }
        Ok(Self { model: model.ok_or(usage)?, python, only, payload, quick })
    }
}
