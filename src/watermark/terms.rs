//! What a mark is bound to: its owner's name, the original, a public random value, and every parameter.

use super::carrier::{BLOCK, Parameters, rows_per_block};
use super::fingerprint::CODE_LEN;
use super::keystream::{Key, RUN, hash};
use super::merkle::Digest;
use super::secrets::MarkKey;
use crate::keys::OwnerKey;
use crate::tensor::Dtype;

/// Everything that the keys of a mark depend on, besides the secret.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Terms {
    /// Name of the owner.
    pub(super) owner: String,
    /// Merkle root of the original's blocks.
    pub(super) root: Digest,
    /// A public random value, or nothing.
    pub(super) beacon: String,
    pub(super) parameters: Parameters,
    pub(super) carriers: Vec<Outline>,
}

/// A carrier, without its weights.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Outline {
    pub(super) name: String,
    pub(super) dtype: Dtype,
    pub(super) shape: Vec<u64>,
}

impl Outline {
    /// Rows and columns.
    pub(super) fn matrix(&self) -> (u64, u64) {
        let columns = self.shape.iter().skip(1).fold(1, |product: u64, dim| product.saturating_mul(*dim));
        (self.shape.first().copied().unwrap_or(1), columns)
    }

    /// How many blocks it is cut into.
    pub(super) fn blocks(&self) -> u64 {
        let (rows, columns) = self.matrix();
        rows.div_ceil(rows_per_block(columns))
    }

    /// The first row of a block, and how many it has.
    pub(super) fn rows_of(&self, block: u64) -> (u64, u64) {
        let (rows, columns) = self.matrix();
        let first = block.saturating_mul(rows_per_block(columns)).min(rows);
        (first, rows_per_block(columns).min(rows - first))
    }
}

impl Terms {
    /// All blocks in order: index of the carrier, number of the block in it.
    pub(super) fn blocks(&self) -> impl Iterator<Item = (usize, u64)> {
        self.carriers.iter().enumerate().flat_map(|(i, carrier)| (0..carrier.blocks()).map(move |number| (i, number)))
    }

    /// The key of all marks of this owner under these terms, which it follows from one-way.
    pub(super) fn mark_key(&self, owner: &OwnerKey) -> MarkKey {
        let parts: [&[u8]; 5] =
            [b"wm/v1/own", self.owner.as_bytes(), &self.root, self.beacon.as_bytes(), &self.parameters_digest()];
        MarkKey::new(Key::new(*owner.master()).derive(&parts), self)
    }

    /// A digest of the terms, and of the commitments to all secrets.
    pub(super) fn binding(&self, secrets: &Digest) -> Digest {
        let (owner, beacon) = (self.owner.as_bytes(), self.beacon.as_bytes());
        hash(&[b"binding", owner, &self.root, beacon, &self.parameters_digest(), secrets])
    }

    /// A digest of every parameter, and of the table of carriers.
    fn parameters_digest(&self) -> Digest {
        let cells: Vec<_> = self
            .carriers
            .iter()
            .map(|carrier| {
                let (rows, columns) = carrier.matrix();
                [carrier.name.clone(), carrier.dtype.to_string(), rows.to_string(), columns.to_string()]
            })
            .collect();
        let cells = cells.iter().flatten().map(String::as_bytes);
        let table = hash(&[b"table".as_slice()].into_iter().chain(cells).collect::<Vec<_>>());
        let Parameters { strength, group } = self.parameters;
        let numbers = [group, CODE_LEN as u64, RUN as u64, BLOCK].map(|n| n.to_string());
        let strength = strength.to_bits().to_be_bytes();
        let mut parts: Vec<&[u8]> = vec![b"params", b"2", &strength];
        parts.extend(numbers.iter().map(String::as_bytes));
        parts.push(&table);
        hash(&parts)
    }
}
