//! One row for each attack, in Markdown.

use weightmark::watermark::{Evidence, Method};

use crate::lab::label;

const COLUMNS: [&str; 9] =
    ["attack", "change", "direct", "cleaned", "blind", "copy", "payload bit errors", "quality", "s"];
/// A copy is accused at this.
const ACCUSED: f64 = -9.0;

/// What is known of one suspect.
pub(crate) struct Row {
    /// What was done.
    pub(crate) attack: String,
    /// Change of the weights, relative to the marked ones.
    pub(crate) change: Option<f64>,
    /// What detection found, or why it could not look.
    pub(crate) evidence: Result<Evidence, String>,
    /// How many copies went into the suspect, the first ones.
    pub(crate) leaked: usize,
    /// What the model is still worth.
    pub(crate) quality: Option<String>,
    /// What detection took.
    pub(crate) seconds: f64,
}

/// The head of the table.
pub(crate) fn head() -> String {
    format!("| {} |\n|{}", COLUMNS.join(" | "), "---|".repeat(COLUMNS.len()))
}

impl Row {
    /// The row in Markdown; `payload` is what the mark says in place of a copy, if it does.
    pub(crate) fn line(&self, payload: Option<u64>) -> String {
        let found: Vec<String> = match &self.evidence {
            Ok(evidence) => {
                let method = |method| evidence.reading(method).map_or(String::new(), |reading| power(reading.log10_p));
                let methods = [Method::Direct, Method::Cleaned, Method::Blind].map(method);
                let (copies, payload) = match payload {
                    None => (copies(evidence, self.leaked), String::new()),
                    Some(payload) => (String::new(), evidence.payload().bit_errors(payload).to_string()),
                };
                methods.into_iter().chain([copies, payload]).collect()
            }
            Err(cause) => [cause.as_str(), "", "", "", ""].map(str::to_owned).to_vec(),
        };
        let change = self.change.map_or(String::new(), |change| format!("{:.2} %", 100.0 * change));
        let quality = self.quality.clone().unwrap_or_default();
        let cells =
            [self.attack.clone(), change].into_iter().chain(found).chain([quality, format!("{:.1}", self.seconds)]);
        format!("| {} |", cells.collect::<Vec<_>>().join(" | "))
    }
}

/// How many of the copies that leaked are accused, the weakest evidence among them, and who is accused wrongly.
fn copies(evidence: &Evidence, leaked: usize) -> String {
    let is_guilty = |name: &str| (0..leaked).any(|copy| label(copy) == name);
    let accused = |guilty: bool| {
        let those = evidence.copies().iter().filter(move |copy| is_guilty(&copy.label) == guilty);
        those.filter(|copy| copy.log10_p <= ACCUSED).count()
    };
    if leaked == 0 {
        return format!("nobody, {}", evidence.copies().first().map_or(String::new(), |copy| power(copy.log10_p)));
    }
    let guilty = evidence.copies().iter().filter(|copy| is_guilty(&copy.label));
    let weakest = power(guilty.map(|copy| copy.log10_p).fold(f64::NEG_INFINITY, f64::max));
    let share = if leaked > 1 { format!("{}/{leaked}, ", accused(true)) } else { String::new() };
    let wrong = if accused(false) > 0 { format!(", {} innocent", accused(false)) } else { String::new() };
    format!("{share}{weakest}{wrong}")
}

/// A logarithm, as precisely as it matters.
fn power(log10_p: f64) -> String {
    if log10_p > -9.95 { format!("{:.1}", log10_p + 0.0) } else { format!("{log10_p:.0}") }
}
