//! What an owner claims before release: everything that the keys of a mark are bound to, and commitments to its secrets.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::carrier::{Original, Parameters};
use super::choice::may_carry;
use super::evidence::METHODS;
use super::merkle::{self, Digest};
use super::secrets::MarkKey;
use super::terms::{Outline, Terms};
use crate::crypto;
use crate::error::{Cause, Result, WatermarkError};
use crate::format::ModelIndex;
use crate::io::{Progress, tree};
use crate::json::Hex;
use crate::keys::{OwnerId, OwnerKey};
use crate::tensor::Dtype;

/// Most carriers of a claim.
const MAX_CARRIERS: usize = 1 << 18;
/// Most blocks of a claim: four trillion weights.
const MAX_BLOCKS: u64 = 1 << 22;
/// Longest beacon in bytes.
const MAX_BEACON: usize = 1024;
/// Most variants of the detector that a claim may count.
const MAX_VARIANTS: u64 = 64;

/// What an owner claims: which original, under which parameters, with secrets that are committed to. Holds no secret.
///
/// A key that is not bound to its original cannot be claimed: the root of the original is part of the record, and all keys
/// of streams follow from it.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(try_from = "Text", into = "Text")]
pub struct Record {
    owner: OwnerId,
    pub(super) terms: Terms,
    /// Root of the commitments to the secrets of all blocks, and of the code.
    pub(super) secrets: Digest,
    /// Variants of the detector that p-values are corrected for.
    pub(super) variants: u64,
}

/// A record as it was published.
#[derive(Clone, Debug, PartialEq)]
#[allow(clippy::exhaustive_structs)]
pub struct Claimed {
    /// The record. Whoever judges it has verified its signature.
    pub record: Record,
    /// SHA-256 of the signed claim around it, to which openings belong.
    pub digest: [u8; 32],
}

/// An owner with the original at hand: what a record is made of, and what openings are taken from.
pub(super) struct Holding {
    pub(super) original: Original,
    pub(super) leaves: Vec<Digest>,
    pub(super) mark: MarkKey,
    pub(super) record: Record,
}

impl Holding {
    pub(super) fn new(
        owner: &OwnerKey,
        original: &Path,
        strength: Option<f64>,
        beacon: &str,
        progress: &dyn Progress,
    ) -> Result<Self> {
        let tree = tree::open(original)?;
        let original = Original::new(&*tree, &ModelIndex::read(&*tree)?, strength)?;
        let leaves = original.leaves(progress)?;
        let terms = original.terms(owner.name(), &merkle::root(&leaves), beacon);
        let mark = terms.mark_key(owner);
        let secrets = merkle::root(mark.commitments());
        let record = Record { owner: owner.id(), terms, secrets, variants: METHODS };
        let checked = Record::try_from(Text::from(record)); // what is written is parsed first
        let record = checked.map_err(|problem| WatermarkError::MalformedClaim(problem).on(tree.name()))?;
        Ok(Self { original, leaves, mark, record })
    }
}

impl Record {
    /// What `owner` claims of the model at `original`, a file or a directory.
    pub fn new(
        owner: &OwnerKey,
        original: impl AsRef<Path>,
        strength: Option<f64>,
        beacon: &str,
        progress: &dyn Progress,
    ) -> Result<Self> {
        Ok(Holding::new(owner, original.as_ref(), strength, beacon, progress)?.record)
    }

    /// Who claims.
    pub fn owner(&self) -> &OwnerId {
        &self.owner
    }

    /// Merkle root of the original's blocks, in hexadecimal.
    pub fn root(&self) -> String {
        crypto::hex(&self.terms.root)
    }

    /// The public random value that the mark is bound to, or nothing.
    pub fn beacon(&self) -> &str {
        &self.terms.beacon
    }

    /// The strength of the mark.
    pub fn strength(&self) -> f64 {
        self.terms.parameters.strength
    }

    /// How many tensors carry the mark.
    pub fn tensors(&self) -> usize {
        self.terms.carriers.len()
    }

    /// How many blocks they are cut into.
    pub fn blocks(&self) -> usize {
        self.terms.blocks().count()
    }

    /// What the record was made of, and must be made of again.
    pub(super) fn holding(&self, owner: &OwnerKey, original: &Path, progress: &dyn Progress) -> Result<Holding> {
        let holding = Holding::new(owner, original, Some(self.strength()), self.beacon(), progress)?;
        let name = original.display().to_string();
        match holding.record == *self {
            true => Ok(holding),
            false if owner.id() != self.owner => Err(WatermarkError::NotTheOwner.on(name)),
            false => Err(WatermarkError::NotTheOriginal.on(name)),
        }
    }
}

/// A record as it is written.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Text {
    owner: String,
    owner_id: String,
    root: Hex<32>,
    beacon: String,
    /// In decimal digits, as few as tell it from its neighbours.
    strength: String,
    group: u64,
    variants: u64,
    secrets: Hex<32>,
    carriers: Vec<Row>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Row {
    name: String,
    dtype: String,
    shape: Vec<u64>,
}

impl From<Record> for Text {
    fn from(record: Record) -> Self {
        let Terms { owner, root, beacon, parameters, carriers } = record.terms;
        let row = |Outline { name, dtype, shape }| Row { name, dtype: dtype.to_string(), shape };
        Self {
            owner,
            owner_id: record.owner.to_string(),
            root: Hex(root),
            beacon,
            strength: parameters.strength.to_string(),
            group: parameters.group,
            variants: record.variants,
            secrets: Hex(record.secrets),
            carriers: carriers.into_iter().map(row).collect(),
        }
    }
}

impl TryFrom<Text> for Record {
    type Error = String;

    fn try_from(text: Text) -> Result<Self, String> {
        let owner = OwnerId::parse(&text.owner_id).map_err(|e| e.to_string())?;
        if owner.name() != text.owner || owner.to_string() != text.owner_id {
            return Err("the owner's name is not that of the id".into());
        }
        if text.beacon.len() > MAX_BEACON || text.beacon.contains(char::is_control) {
            return Err("the beacon is too long, or holds control characters".into());
        }
        if !(1..=MAX_VARIANTS).contains(&text.variants) {
            return Err("absurd number of variants".into());
        }
        let carriers = outlines(text.carriers)?;
        let weights = carriers.iter().fold(0u64, |sum, carrier| {
            let (rows, columns) = carrier.matrix();
            sum.saturating_add(rows.saturating_mul(columns))
        });
        let strength: f64 = text.strength.parse().map_err(|_| "strength is not a number")?;
        let parameters = Parameters::for_weights(weights / 2, false, Some(strength)).map_err(|e| e.to_string())?;
        if strength.to_string() != text.strength || parameters.group != text.group {
            return Err("parameters that do not follow from the carriers".into());
        }
        let terms = Terms { owner: text.owner, root: text.root.0, beacon: text.beacon, parameters, carriers };
        Ok(Self { owner, terms, secrets: text.secrets.0, variants: text.variants })
    }
}

/// The table of carriers, if it is one that a model can have.
fn outlines(rows: Vec<Row>) -> Result<Vec<Outline>, String> {
    if rows.is_empty() || rows.len() > MAX_CARRIERS {
        return Err("no carriers, or absurdly many".into());
    }
    let (mut carriers, mut blocks) = (Vec::new(), 0u64);
    for Row { name, dtype, shape } in rows {
        let elements = shape.iter().try_fold(1u64, |product, dim| product.checked_mul(*dim));
        let dtype = Dtype::from_name(&dtype).filter(|dtype| may_carry(&name, *dtype, &shape));
        let (Some(dtype), Some(_), true) = (dtype, elements, shape.len() <= 8) else {
            return Err(format!("{name:?} cannot carry a mark"));
        };
        let is_in_order = carriers.last().is_none_or(|last: &Outline| last.name < name);
        if !is_in_order {
            return Err(format!("{name:?} is named twice, or out of order"));
        }
        let carrier = Outline { name, dtype, shape };
        blocks = blocks.saturating_add(carrier.blocks());
        carriers.push(carrier);
    }
    if blocks > MAX_BLOCKS { Err("absurdly many blocks".into()) } else { Ok(carriers) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A record, and what becomes of it when a part of its text is replaced.
    #[test]
    fn absurd_records_are_refused() {
        let owner = OwnerKey::generate("Acme Ltd").unwrap().id();
        let carriers = vec![
            Outline { name: "a".into(), dtype: Dtype::F32, shape: vec![64, 64] },
            Outline { name: "b".into(), dtype: Dtype::BF16, shape: vec![100, 10, 10] },
        ];
        let parameters = Parameters::for_weights((4096 + 10_000) / 2, false, Some(0.002)).unwrap();
        let terms = Terms { owner: "Acme Ltd".into(), root: [1; 32], beacon: "7".into(), parameters, carriers };
        let record = Record { owner, terms, secrets: [2; 32], variants: 1 };
        let text = serde_json::to_string(&record).unwrap();
        assert_eq!(serde_json::from_str::<Record>(&text).unwrap(), record);
        for (from, to) in [
            ("\"owner\":\"Acme", "\"owner\":\"Other"),
            ("\"beacon\":\"7\"", "\"beacon\":\"\\n\""),
            ("\"strength\":\"0.002\"", "\"strength\":\"0.0020\""),
            ("\"strength\":\"0.002\"", "\"strength\":\"NaN\""),
            ("\"strength\":\"0.002\"", "\"strength\":\"0.2\""),
            ("\"group\":4096", "\"group\":4097"),
            ("\"variants\":1", "\"variants\":0"),
            ("\"variants\":1", "\"variants\":1,\"variants\":1"),
            ("\"variants\":1", "\"variants\":1,\"more\":1"),
            ("[64,64]", "[64,63]"),
            ("[64,64]", "[4294967296,4294967296]"),
            ("[64,64]", "[18446744073709551615,2]"),
            ("[64,64]", "[1000000000000,1000000]"),
            ("[64,64]", "[4096]"),
            ("\"name\":\"b\"", "\"name\":\"a\""),
            ("\"name\":\"a\"", "\"name\":\"c\""),
            ("\"name\":\"a\"", "\"name\":\"a.norm\""),
            ("\"dtype\":\"F32\"", "\"dtype\":\"I32\""),
            ("\"dtype\":\"F32\"", "\"dtype\":\"f32\""),
            ("\"secrets\":\"02", "\"secrets\":\"0G"),
            ("\"secrets\":\"0202", "\"secrets\":\"02"),
        ] {
            assert!(text.contains(from), "{from}");
            assert!(serde_json::from_str::<Record>(&text.replace(from, to)).is_err(), "{from} -> {to}");
        }
    }
}
