//! Fine-tunes of the marked copy, by a script: each is made once.

use crate::Result;
use crate::lab::Lab;
use crate::model::{Weights, load};

/// How to fine-tune.
pub(crate) struct Tuning {
    name: &'static str,
    rate: &'static str,
    rank: &'static str,
}

/// What is usual.
pub(crate) const GENTLE: Tuning = Tuning { name: "gentle", rate: "5e-5", rank: "0" };
/// At a rate that the model suffers from.
pub(crate) const DESTRUCTIVE: Tuning = Tuning { name: "destructive", rate: "5e-4", rank: "0" };
/// Of low rank.
pub(crate) const LORA: Tuning = Tuning { name: "lora", rate: "1e-3", rank: "16" };

impl Tuning {
    /// The tuned weights; `None` where there is nothing to tune with, or no such model.
    pub(crate) fn of(&self, lab: &Lab) -> Result<Option<Weights>> {
        let out = lab.path(&format!("{}.safetensors", self.name));
        if !out.exists() {
            let marked = lab.copy(0)?;
            let options = ["--lr", self.rate, "--rank", self.rank].map(AsRef::as_ref);
            let files = [marked.as_os_str(), out.as_os_str(), lab.model.as_os_str()];
            if lab.script("examples/robustness/finetune.py", files.into_iter().chain(options))?.is_none() {
                return Ok(None);
            }
        }
        load(&out).map(Some)
    }
}
