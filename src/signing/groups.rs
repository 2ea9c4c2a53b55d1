//! BLAKE3 by groups: the subtrees of 64 KiB of a hash, each with a chaining value that it can be checked against alone.
//!
//! The values of all groups hash to the BLAKE3 digest of the whole, so whoever trusts the one can trust the others.

use blake3::hazmat::{HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};

/// Bytes of a group: 64 chunks of BLAKE3.
pub(super) const GROUP: usize = 64 << 10;
/// So many values are worth another thread.
const MANY: usize = 4096;

/// The chaining value of a subtree.
pub(super) type Value = [u8; 32];

/// The value of the subtree that starts at `at`, a multiple of the largest power of two that `bytes` needs. Of no bytes
/// there is none.
pub(super) fn value(at: u64, bytes: &[u8]) -> Value {
    value_of(at, &[bytes])
}

/// The same, of bytes that lie in several places.
pub(super) fn value_of(at: u64, slices: &[&[u8]]) -> Value {
    let mut hasher = blake3::Hasher::new();
    hasher.set_input_offset(at);
    slices.iter().for_each(|bytes| _ = hasher.update(bytes));
    hasher.finalize_non_root()
}

/// Sets the values of the groups of `bytes`, which start at `at`.
pub(super) fn fill(at: u64, bytes: &[u8], values: &mut [Value]) {
    for ((at, group), slot) in (at..).step_by(GROUP).zip(bytes.chunks(GROUP)).zip(values) {
        *slot = value(at, group);
    }
}

/// The digest of what has these subtrees: two or more, of one size that is a power of two, but for the last. (Of one
/// alone the digest is no function of its value.)
pub(super) fn root(values: &[Value]) -> Value {
    let (left, right) = values.split_at(left_len(values.len()));
    merge_subtrees_root(&merge(left), &merge(right), Mode::Hash).into()
}

/// As deep as the tree is high.
fn merge(values: &[Value]) -> Value {
    match values {
        [] => Value::default(), // of no one: a root has two subtrees
        [value] => *value,
        values => {
            let (left, right) = values.split_at(left_len(values.len()));
            let (left, right) = if values.len() > MANY {
                rayon::join(|| merge(left), || merge(right))
            } else {
                (merge(left), merge(right))
            };
            merge_subtrees_non_root(&left, &right, Mode::Hash)
        }
    }
}

/// How many subtrees are on the left: the largest power of two that leaves some on the right.
fn left_len(len: usize) -> usize {
    len.div_ceil(2).next_power_of_two().min(len)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn the_root_is_the_hash(len in GROUP + 1..40 * GROUP, seed in any::<u8>()) {
            let bytes: Vec<u8> = (0..len).map(|i| (i * 31 + i / 977) as u8 ^ seed).collect();
            for unit in [GROUP, GROUP / 64, GROUP / 2] {
                let values: Vec<_> = bytes.chunks(unit).enumerate().map(|(i, b)| value((i * unit) as u64, b)).collect();
                prop_assert_eq!(root(&values), *blake3::hash(&bytes).as_bytes());
            }
        }
    }

    #[test]
    fn many_values_merge_on_several_threads_all_the_same() {
        let bytes = vec![3; 1024 * (2 * MANY + 5) + 1];
        let values: Vec<_> = bytes.chunks(1024).enumerate().map(|(i, b)| value(i as u64 * 1024, b)).collect();
        assert!(root(&values) == *blake3::hash(&bytes).as_bytes());
    }
}
