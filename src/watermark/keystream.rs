//! Keyed sequences: one-way key derivation, and ChaCha20 keystreams with random access.

use chacha20::ChaCha20;
use chacha20::cipher::{KeyIvInit, StreamCipher};
use zeroize::Zeroizing;

use crate::crypto;

/// Weights that share a role and a place in the code.
pub(super) const RUN: usize = 64;

/// A derived key; each is wiped when dropped.
pub(super) struct Key(Zeroizing<[u8; 32]>);

/// SHA-256 over parts, each after its length, so that no two lists of parts hash alike.
pub(super) fn hash(parts: &[&[u8]]) -> [u8; 32] {
    let lengths: Vec<_> = parts.iter().map(|part| (part.len() as u64).to_be_bytes()).collect();
    let interleaved: Vec<&[u8]> = lengths.iter().zip(parts).flat_map(|(len, part)| [len.as_slice(), part]).collect();
    crypto::sha256(&interleaved)
}

impl Key {
    pub(super) fn new(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The key itself, to be shown or committed to.
    pub(super) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The key for one purpose: HMAC-SHA-256 of the hash of `parts`.
    pub(super) fn derive(&self, parts: &[&[u8]]) -> Self {
        Self::new(crypto::hmac_sha256(&self.0, &[&hash(parts)]))
    }

    /// The first bytes of the keystream called `label` (at most 12 bytes): ChaCha20 (RFC 8439) from block 0.
    pub(super) fn stream(&self, label: &str, bytes: &mut [u8]) {
        self.keystream(label)(bytes);
    }

    /// What fills buffers with the keystream called `label`, one after the other.
    pub(super) fn keystream(&self, label: &str) -> impl FnMut(&mut [u8]) + use<> {
        let mut nonce = [0; 12];
        nonce[..label.len()].copy_from_slice(label.as_bytes());
        let mut cipher = ChaCha20::new((&*self.0).into(), &nonce.into());
        move |bytes| {
            bytes.fill(0);
            cipher.apply_keystream(bytes);
        }
    }

    /// The first `n` little-endian words of a keystream.
    pub(super) fn words(&self, label: &str, n: usize) -> Vec<u32> {
        let mut bytes = vec![0; n * 4];
        self.stream(label, &mut bytes);
        bytes.as_chunks().0.iter().map(|word| u32::from_le_bytes(*word)).collect()
    }

    /// The first `n` little-endian 16-bit words of a keystream.
    pub(super) fn halves(&self, label: &str, n: usize) -> Vec<u16> {
        let mut bytes = vec![0; n * 2];
        self.stream(label, &mut bytes);
        bytes.as_chunks().0.iter().map(|word| u16::from_le_bytes(*word)).collect()
    }

    /// The first `n` numbers in [0, 1) of a keystream, each from 64 bits.
    pub(super) fn uniforms(&self, label: &str, n: usize) -> Vec<f64> {
        let mut bytes = vec![0; n * 8];
        self.stream(label, &mut bytes);
        bytes.as_chunks().0.iter().map(|word| u64::from_le_bytes(*word) as f64 / 18_446_744_073_709_551_616.0).collect()
    }
}

/// What the key says of each weight of a block.
pub(super) struct Chips {
    /// One bit a weight, 64 a word: 1 is +1, 0 is -1.
    signs: Vec<u64>,
    /// One word a run.
    words: Vec<u32>,
    /// One number in [0, 1) a group.
    pub(super) dither: Vec<f64>,
}

/// What a run of 64 weights carries.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Role {
    /// The owner mark, as part of this group of the block.
    Owner(usize),
    /// The copy mark, at this position of the code.
    Copy(usize),
}

impl Chips {
    /// The chips of a block of `weights` weights, its owner runs spread over `groups` groups.
    pub(super) fn new(block: &Key, weights: usize, groups: usize) -> Self {
        let runs = weights.div_ceil(RUN);
        let mut bytes = vec![0; runs * 8];
        block.stream("sign", &mut bytes);
        let signs = bytes.as_chunks().0.iter().map(|word| u64::from_le_bytes(*word)).collect();
        Self { signs, words: block.words("role", runs), dither: block.uniforms("dither", groups) }
    }

    /// The owner weights of each group, in a block of so many weights.
    pub(super) fn group_sizes(&self, weights: usize) -> Vec<u64> {
        let mut sizes = vec![0; self.dither.len()];
        for (run, word) in self.words.iter().enumerate().filter(|(_, word)| **word & 1 == 0) {
            let group = (word >> 1) as usize % sizes.len();
            sizes[group] += (weights - run * RUN).min(RUN) as u64;
        }
        sizes
    }

    /// The signs of a run: bit `i` is set where the chip of its weight `i` is +1.
    #[inline(always)]
    pub(super) fn signs(&self, run: usize) -> u64 {
        self.signs[run]
    }

    /// What a run carries, in a code of `code_len` positions.
    #[inline(always)]
    pub(super) fn role(&self, run: usize, code_len: usize) -> Role {
        let (is_copy, rest) = (self.words[run] & 1 == 1, self.words[run] >> 1);
        if is_copy {
            Role::Copy(rest as usize % code_len)
        } else {
            Role::Owner((rest % self.dither.len() as u32) as usize) // there are far fewer than 2^32
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vector of `spec/watermark.md`: keys, signs and roles by the plain derivation.
    #[test]
    fn derivation_matches_the_specification() {
        let master = Key::new(std::array::from_fn(|i| i as u8));
        let mark = master.derive(&[b"wm/v1/own", b"Acme Ltd", &[0; 32], b"beacon-0"]);
        assert_eq!(crypto::hex(&*mark.0), "4ae9ae80dfab6e3dbe2bad0df86eae4db8b54f97e5ebc23a5692264bd598ad36");
        let tensor = mark.derive(&[b"tensor", b"model.layers.0.mlp.up_proj.weight"]);
        assert!(crypto::hex(&*tensor.0).starts_with("c57ab805"));
        let block = tensor.derive(&[b"seg", b"0"]);
        assert!(crypto::hex(&*block.0).starts_with("15c1e0d5"));
        let mut signs = [0; 16];
        block.stream("sign", &mut signs);
        assert_eq!(crypto::hex(&signs), "07fc93758b956df720a0e5ecdd036b5f");
        assert_eq!(block.words("role", 4), [2_582_857_820, 2_311_697_163, 1_337_615_902, 1_018_171_968]);
    }
}
