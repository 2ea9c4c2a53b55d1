//! `lineage`: do two models have a common origin?

use std::fmt::Write;
use std::path::Path;

use serde_json::{Value, json};
use weightmark::Error;
use weightmark::error::{EncryptionError, Printable};
use weightmark::format::ModelIndex;
use weightmark::io::{Tree, tree};
use weightmark::lineage::{self, Compared};
use weightmark::matching::Side;

use crate::cli::Lineage;
use crate::keys;
use crate::output::{Failure, Outcome, print};
use crate::progress::Bars;

pub(crate) fn run(args: &Lineage, json: bool, bars: &Bars) -> Outcome {
    let (first, second) = (open(&args.first, args)?, open(&args.second, args)?);
    let (a, b) = (ModelIndex::read(&*first)?, ModelIndex::read(&*second)?);
    let found = lineage::compare(Side::new(&*first, &a), Side::new(&*second, &b), bars)?;
    if found.layers().is_empty() {
        for (index, tree) in [(&a, &first), (&b, &second)] {
            if let (None, Some((path, cause))) = (index.tensors().next(), index.refused().first()) {
                let name = if path.is_empty() { tree.name().to_owned() } else { path.clone() };
                return Err(Error::Format { name, cause: cause.clone() }.into()); // no weights were seen: that is no answer
            }
        }
    }
    report(&found, json)?;
    if found.is_related() { Ok(()) } else { Err(Failure::No) }
}

/// One of the models: keys are for whichever is encrypted, but both must be where a context is expected.
fn open(path: &Path, args: &Lineage) -> Result<Box<dyn Tree>, Error> {
    match keys::open(path, &args.opening) {
        Err(Error::Encryption { cause: EncryptionError::ExpectedEncrypted, .. }) if args.opening.context.is_none() => {
            tree::open(path)
        }
        opened => opened,
    }
}

fn report(found: &lineage::Lineage, json: bool) -> Outcome {
    let layer = |layer: &Compared| {
        json!({
            "name": layer.name,
            "tensor": layer.tensor,
            "units": layer.units,
            "matched": layer.matched,
            "fixed": layer.fixed,
            "agreeing": layer.agreeing,
            "control": layer.control,
        })
    };
    let object = json!({
        "related": found.is_related(),
        "fixed_points": {"log10_p": found.log10_p(), "fixed": found.fixed(), "proved": found.is_proved()},
        "agreement": {"is_p_value": false, "agrees": found.agrees()},
        "layers": found.layers().iter().map(layer).collect::<Value>(),
    });
    print(json, "lineage", object, &text(found))
}

fn text(found: &lineage::Lineage) -> String {
    let layers = found.layers();
    if layers.is_empty() {
        return "not shown: the models have nothing comparable\n".into();
    }
    let verdict = match (found.is_proved(), found.agrees()) {
        (true, _) => "related",
        (false, true) => "related, by a heuristic",
        _ => "not shown to be related",
    };
    let mut text = format!("{verdict}: log10 p = {:.1}, {} fixed points\n", found.log10_p(), found.fixed());
    // a String takes everything that is written to it
    for layer in layers {
        let Compared { name, units, matched, fixed, .. } = layer;
        let _ = write!(text, "  {}: {fixed} of {units} units in the same place, {matched} matched", Printable(name));
        if let Some(agreeing) = layer.agreeing {
            let _ = write!(text, "; {agreeing} agree ({:.0} %)", 100.0 * layer.agreement());
        }
        if let Some(control) = layer.control {
            let _ = write!(text, ", {control} with another layer of the same model");
        }
        text.push('\n');
    }
    text.push_str(
        "p holds if the order of units of one model is exchangeable: initialised independently of the other\n",
    );
    if layers.iter().any(|layer| layer.agreeing.is_some()) {
        text.push_str("agreement is not a p-value: independent models reach a few per cent\n");
    }
    text
}
