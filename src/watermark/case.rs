//! A claim before a judge: what was opened is checked against what was claimed, and then held against suspects.

use std::collections::HashMap;
use std::path::Path;

use super::carrier::{self, Original};
use super::detect::{Search, examine};
use super::evidence::{Evidence, METHODS, is_beyond_doubt};
use super::keystream::Key;
use super::merkle;
use super::opening::{Opened, Opening, Shown, drawn, part_name};
use super::record::{Claimed, Record};
use super::secrets::{BlockKeys, MarkKey, code_commitment, code_key, commitment, stream_key};
use crate::error::{Cause, Result, WatermarkError};
use crate::format::ModelIndex;
use crate::io::{Progress, Tree, tree};
use crate::matching::Side;

/// A claim whose opening was checked: its keys are those that were committed to, and bound to the original at hand.
pub struct Case {
    record: Record,
    tree: Box<dyn Tree>,
    index: ModelIndex,
    original: Original,
    keys: Box<dyn BlockKeys>,
    /// Base-10 logarithm of what p-values are multiplied by.
    correction: f64,
    /// How many blocks were opened, if not all.
    opened: Option<usize>,
}

/// What a judge finds in a suspect.
#[derive(Clone, Debug)]
pub struct Verdict {
    evidence: Evidence,
    correction: f64,
}

/// Whose mark is in whose original.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[allow(clippy::exhaustive_enums)]
pub enum Order {
    /// The mark of the first claim is in the original of the second: that was made from a marked copy.
    First,
    /// The other way round.
    Second,
    /// Neither: the two originals have nothing to do with each other.
    Neither,
    /// Each is in the other, which cannot be unless somebody has both keys.
    Both,
}

impl Case {
    /// Checks an opening of a claim, whose signature was verified. `original` is the model, or the file of
    /// the blocks that were opened; `draw` is the value that the judge has drawn blocks with.
    pub fn new(
        claimed: Claimed,
        opening: Opening,
        original: impl AsRef<Path>,
        draw: Option<&str>,
        progress: &dyn Progress,
    ) -> Result<Self> {
        let tree = tree::open(original)?;
        let fail = |cause: WatermarkError| cause.on(tree.name());
        if opening.claim != claimed.digest {
            return Err(fail(WatermarkError::ForeignOpening));
        }
        let index = ModelIndex::read(&*tree)?;
        let record = &claimed.record;
        let variants = record.variants.max(METHODS) as f64 / METHODS as f64; // the evidence counts its own
        let (original, keys, opened): (_, Box<dyn BlockKeys>, _) = match opening.shown {
            Shown::Whole(secret) => {
                let original = Original::new(&*tree, &index, Some(record.strength()))?;
                let (terms, root) = (&record.terms, original.root(progress)?);
                if original.terms(&terms.owner, &root, &terms.beacon) != *terms {
                    return Err(fail(WatermarkError::NotTheOriginal));
                }
                let mark = MarkKey::new(secret, terms);
                if merkle::root(mark.commitments()) != record.secrets {
                    return Err(fail(WatermarkError::SecretNotClaimed("the mark".into())));
                }
                (original, Box::new(mark), None)
            }
            Shown::Blocks { draw: opened, blocks, code } => {
                let expected = draw.unwrap_or_default();
                if draw.is_none() || opened != expected {
                    return Err(fail(WatermarkError::Draw { opened, expected: expected.to_owned() }));
                }
                let count = blocks.len();
                let (original, keys) = check_blocks(&claimed, expected, blocks, code, &*tree, &index)?;
                (original, Box::new(keys), Some(count))
            }
        };
        // whoever opens blocks may have tried how many to open
        let tries = opened.map_or(1, |_| record.blocks()) as f64;
        let correction = (variants * tries).log10();
        Ok(Self { record: claimed.record, correction, index, original, keys, opened, tree })
    }

    /// What was claimed.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// How many blocks were opened, if not all.
    pub fn opened(&self) -> Option<usize> {
        self.opened
    }

    /// Looks in a suspect for the mark, and for those of the copies with these labels if the key of the code was opened.
    pub fn examine(&self, suspect: &dyn Tree, labels: &[String], progress: &dyn Progress) -> Result<Verdict> {
        let side = Side::new(&*self.tree, &self.index);
        let mut evidence = examine(&self.original, side, &*self.keys, labels, suspect, &Search::default(), progress)?;
        evidence.copies.iter_mut().for_each(|copy| copy.log10_p = (copy.log10_p + self.correction).min(0.0));
        Ok(Verdict { evidence, correction: self.correction })
    }

    /// Looks for the mark of each of two claims in the original of the other: what they find, and what follows.
    pub fn against(&self, other: &Case, progress: &dyn Progress) -> Result<(Verdict, Verdict, Order)> {
        if let Some(case) = [self, other].into_iter().find(|case| case.opened.is_some()) {
            return Err(WatermarkError::OnlyBlocks.on(case.tree.name()));
        }
        let first = self.examine(&*other.tree, &[], progress)?;
        let second = other.examine(&*self.tree, &[], progress)?;
        let order = match (first.is_proved(), second.is_proved()) {
            (true, false) => Order::First,
            (false, true) => Order::Second,
            (false, false) => Order::Neither,
            (true, true) => Order::Both,
        };
        Ok((first, second, order))
    }
}

impl Verdict {
    /// Base-10 logarithm of the p-value of the owner mark, corrected for the methods that the claim counts, and for the number of
    /// blocks where only some were opened.
    pub fn log10_p(&self) -> f64 {
        (self.evidence.log10_p() + self.correction).min(0.0)
    }

    /// Whether the suspect was made from what was claimed, beyond doubt: p below 2^-128.
    pub fn is_proved(&self) -> bool {
        is_beyond_doubt(self.log10_p())
    }

    /// What was found; p-values of copies are corrected, that of the owner mark is not.
    pub fn evidence(&self) -> &Evidence {
        &self.evidence
    }
}

/// Keys of blocks that were opened one by one.
struct OpenedKeys {
    /// By the name of the part.
    blocks: HashMap<String, Key>,
    code: Option<Key>,
}

impl BlockKeys for OpenedKeys {
    fn stream_key(&self, tensor: &str, block: u64) -> Option<Key> {
        self.blocks.get(tensor).filter(|_| block == 0).map(|key| Key::new(*key.bytes()))
    }

    fn code_key(&self) -> Option<Key> {
        self.code.as_ref().map(|key| Key::new(*key.bytes()))
    }
}

/// Checks each of the blocks that `draw` draws: its bytes, in a tensor of its own, against the root of the original, and its
/// secret against that of the commitments.
fn check_blocks(
    claimed: &Claimed,
    draw: &str,
    blocks: Vec<Opened>,
    code: Option<Opened>,
    tree: &dyn Tree,
    index: &ModelIndex,
) -> Result<(Original, OpenedKeys)> {
    let fail = |cause: WatermarkError| cause.on(tree.name());
    let record = &claimed.record;
    let (terms, all) = (&record.terms, record.terms.blocks().collect::<Vec<_>>());
    if blocks.len() > all.len() || index.tensors().count() != blocks.len() {
        let (asked, there) = (blocks.len(), all.len());
        return Err(fail(WatermarkError::DrawCount { asked, there }));
    }
    let (binding, commitments) = (terms.binding(&record.secrets), all.len() + 1);
    let (mut tensors, mut keys) = (Vec::new(), HashMap::new());
    for (place, opened) in drawn(&claimed.digest, draw, all.len(), blocks.len()).into_iter().zip(&blocks) {
        let (outline, number) = (&terms.carriers[all[place].0], all[place].1);
        let name = part_name(&outline.name, number);
        let mut shape = outline.shape.clone();
        shape.iter_mut().take(1).for_each(|rows| *rows = outline.rows_of(number).1);
        let found = index.tensor(&name);
        let fits = found.filter(|(_, t)| t.is_plain() && t.dtype == outline.dtype && t.shape == shape);
        let Some((file, tensor)) = fits else { return Err(fail(WatermarkError::BlockNotClaimed(name))) };
        let leaf = commitment(&outline.name, number, &opened.secret);
        if merkle::climb(leaf, place, commitments, &opened.secret_path) != Some(record.secrets) {
            return Err(fail(WatermarkError::SecretNotClaimed(name)));
        }
        keys.insert(name, stream_key(&opened.secret, &binding, &outline.name, number));
        tensors.push((file, tensor, place, opened, outline, number));
    }
    let parts = tensors.iter().map(|(file, tensor, ..)| (*file, *tensor));
    let original = Original::of_opened(tree, parts, terms.parameters)?;
    for (block, (_, tensor, place, opened, outline, number)) in original.blocks().iter().zip(&tensors) {
        let leaf = carrier::leaf(&outline.name, *number, &original.bytes(block)?);
        if merkle::climb(leaf, *place, all.len(), &opened.block_path) != Some(terms.root) {
            return Err(fail(WatermarkError::BlockNotClaimed(tensor.name.clone())));
        }
    }
    let code = match code {
        Some(opened) => {
            let leaf = code_commitment(&opened.secret);
            if merkle::climb(leaf, all.len(), commitments, &opened.secret_path) != Some(record.secrets) {
                return Err(fail(WatermarkError::SecretNotClaimed("the code".into())));
            }
            Some(code_key(&opened.secret, &binding))
        }
        None => None,
    };
    Ok((original, OpenedKeys { blocks: keys, code }))
}
