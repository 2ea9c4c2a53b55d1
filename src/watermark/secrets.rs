//! Who knows the secrets of blocks, what commits to them, and the keys that follow from them.
//!
//! The secret of a block can be shown without those of others. No secret fits anything but its own original: the keys of
//! the streams depend on all that the mark is bound to, and on the commitments to *all* secrets. So whoever tries other
//! secrets for one block changes the chips of every block, and cannot choose a lucky secret for each in turn.

use super::keystream::{Key, hash};
use super::merkle::{self, Digest};
use super::terms::Terms;

/// Who knows the keys of blocks: the owner of all, a judge of those that were opened.
pub(super) trait BlockKeys: Send + Sync {
    /// The key of the streams of a block, if it is known.
    fn stream_key(&self, tensor: &str, block: u64) -> Option<Key>;

    /// The key of the code that tells copies, if it is known.
    fn code_key(&self) -> Option<Key>;
}

/// The secret from which all marks in one original come, and what they are bound to.
pub(super) struct MarkKey {
    secret: Key,
    commitments: Vec<Digest>,
    binding: Digest,
}

impl MarkKey {
    /// The marks of this secret under these terms.
    pub(super) fn new(secret: Key, terms: &Terms) -> Self {
        let mut this = Self { secret, commitments: Vec::new(), binding: Digest::default() };
        let blocks = terms.blocks().map(|(carrier, number)| {
            let name = &terms.carriers[carrier].name;
            commitment(name, number, &this.block_secret(name, number))
        });
        let commitments: Vec<Digest> = blocks.chain([code_commitment(&this.code_secret())]).collect();
        this.binding = terms.binding(&merkle::root(&commitments));
        this.commitments = commitments;
        this
    }

    /// The secret of everything.
    pub(super) fn secret(&self) -> &Key {
        &self.secret
    }

    /// The secret of a block: whoever is shown it learns nothing of others.
    pub(super) fn block_secret(&self, tensor: &str, number: u64) -> Key {
        self.secret.derive(&[b"tensor", tensor.as_bytes()]).derive(&[b"seg", number.to_string().as_bytes()])
    }

    /// The secret of the code.
    pub(super) fn code_secret(&self) -> Key {
        self.secret.derive(&[b"code"])
    }

    /// What commits to the secret of every block, in their order, and last to that of the code.
    pub(super) fn commitments(&self) -> &[Digest] {
        &self.commitments
    }

    /// The key of the streams of a block.
    pub(super) fn block(&self, tensor: &str, number: u64) -> Key {
        stream_key(&self.block_secret(tensor, number), &self.binding, tensor, number)
    }

    /// The key of the code.
    pub(super) fn code(&self) -> Key {
        code_key(&self.code_secret(), &self.binding)
    }
}

impl BlockKeys for MarkKey {
    fn stream_key(&self, tensor: &str, block: u64) -> Option<Key> {
        Some(self.block(tensor, block))
    }

    fn code_key(&self) -> Option<Key> {
        Some(self.code())
    }
}

/// Commits to the secret of a block, which is too random to be guessed from it.
pub(super) fn commitment(tensor: &str, number: u64, secret: &Key) -> Digest {
    hash(&[b"secret", tensor.as_bytes(), number.to_string().as_bytes(), secret.bytes()])
}

/// Commits to the secret of the code.
pub(super) fn code_commitment(secret: &Key) -> Digest {
    hash(&[b"code", secret.bytes()])
}

/// The key of the streams of a block, bound one-way to all that the mark is bound to.
pub(super) fn stream_key(secret: &Key, binding: &Digest, tensor: &str, number: u64) -> Key {
    secret.derive(&[b"block", binding, tensor.as_bytes(), number.to_string().as_bytes()])
}

/// The key of the code, bound likewise.
pub(super) fn code_key(secret: &Key, binding: &Digest) -> Key {
    secret.derive(&[binding])
}

#[cfg(test)]
mod tests {
    use super::super::carrier::Parameters;
    use super::super::terms::Outline;
    use super::*;
    use crate::tensor::Dtype;

    fn terms() -> Terms {
        let carriers = vec![Outline { name: "w".into(), dtype: Dtype::F32, shape: vec![3, 1 << 20] }];
        let parameters = Parameters::for_weights(3 << 19, false, None).unwrap();
        Terms { owner: "Acme Ltd".into(), root: [1; 32], beacon: String::new(), parameters, carriers }
    }

    #[test]
    fn another_secret_of_one_block_changes_the_keys_of_all() {
        let (terms, secret) = (terms(), || Key::new([7; 32]));
        let mark = MarkKey::new(secret(), &terms);
        assert_eq!(mark.commitments().len(), 3 + 1);
        for changed in 0..4 {
            let mut commitments = mark.commitments().to_vec();
            commitments[changed] = commitment("w", changed as u64, &Key::new([8; 32]));
            let binding = terms.binding(&merkle::root(&commitments));
            for number in 0..3 {
                let key = stream_key(&mark.block_secret("w", number), &binding, "w", number);
                assert_ne!(key.bytes(), mark.block("w", number).bytes());
            }
            assert_ne!(code_key(&mark.code_secret(), &binding).bytes(), mark.code().bytes());
        }
    }

    #[test]
    fn every_term_changes_every_key() {
        let mark = |terms: &Terms| MarkKey::new(Key::new([7; 32]), terms);
        let key = *mark(&terms()).block("w", 0).bytes();
        let changes: [fn(&mut Terms); 6] = [
            |terms| terms.owner.push('.'),
            |terms| terms.root[31] ^= 1,
            |terms| terms.beacon.push('1'),
            |terms| terms.parameters.strength *= 1.5,
            |terms| terms.parameters.group += 1,
            |terms| terms.carriers[0].dtype = Dtype::F16,
        ];
        for (i, change) in changes.into_iter().enumerate() {
            let mut changed = terms();
            change(&mut changed);
            assert_ne!(*mark(&changed).block("w", 0).bytes(), key, "{i}");
        }
    }
}
