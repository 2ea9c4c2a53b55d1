//! `lineage`: do two models have a common origin?

use std::fmt::Write;

use weightmark::error::Printable;
use weightmark::lineage::{self, Compared};

use crate::cli::Lineage;
use crate::keys;
use crate::output::{Failure, Outcome, print};
use crate::progress::Bars;

pub(crate) fn run(args: &Lineage, json: bool, bars: &Bars) -> Outcome {
    let options = keys::options(&args.opening)?;
    let (first, second) = (options.tree_of_either(&args.first)?, options.tree_of_either(&args.second)?);
    let found = lineage::compare_trees(&*first, &*second, bars)?;
    report(&found, json)?;
    if found.is_related() { Ok(()) } else { Err(Failure::No) }
}

fn report(found: &lineage::Lineage, json: bool) -> Outcome {
    print(json, "lineage", found.to_json(), &text(found))
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
