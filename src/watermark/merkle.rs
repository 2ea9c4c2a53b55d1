//! Trees of hashes: one root for many leaves, and paths that show that a leaf is beneath it.

use super::keystream::hash;

/// A node of a tree.
pub(super) type Digest = [u8; 32];

/// The root over `leaves`. An odd last node of a level is promoted.
pub(super) fn root(leaves: &[Digest]) -> Digest {
    let mut level = leaves.to_vec();
    while level.len() > 1 {
        level = above(&level);
    }
    level.first().copied().unwrap_or_default()
}

/// The neighbours that lead from leaf number `at` to the root, lowest first.
pub(super) fn path(leaves: &[Digest], mut at: usize) -> Vec<Digest> {
    let (mut level, mut path) = (leaves.to_vec(), Vec::new());
    while level.len() > 1 {
        path.extend(level.get(at ^ 1));
        level = above(&level);
        at /= 2;
    }
    path
}

/// The root that `path` leads to from `leaf`, which is number `at` of `count`; `None` if it is not of the right length.
pub(super) fn climb(leaf: Digest, mut at: usize, mut count: usize, path: &[Digest]) -> Option<Digest> {
    let (mut node, mut path) = (leaf, path.iter());
    while count > 1 {
        if at ^ 1 < count {
            let neighbour = path.next()?;
            node = if at.is_multiple_of(2) { join(&node, neighbour) } else { join(neighbour, &node) };
        }
        at /= 2;
        count = count.div_ceil(2);
    }
    path.next().is_none().then_some(node)
}

fn above(level: &[Digest]) -> Vec<Digest> {
    let pair = |pair: &[Digest]| match pair {
        [left, right] => join(left, right),
        _ => pair[0],
    };
    level.chunks(2).map(pair).collect()
}

fn join(left: &Digest, right: &Digest) -> Digest {
    hash(&[b"node", left, right])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_leads_to_the_root_from_its_own_place_alone() {
        for count in 1..20 {
            let leaves: Vec<Digest> = (0..count).map(|i| hash(&[b"leaf", &[i as u8]])).collect();
            let top = root(&leaves);
            for at in 0..count {
                let mut steps = path(&leaves, at);
                assert_eq!(climb(leaves[at], at, count, &steps), Some(top));
                let elsewhere = (0..count).filter(|other| *other != at);
                assert!(elsewhere.clone().all(|other| climb(leaves[at], other, count, &steps) != Some(top)));
                assert!(elsewhere.clone().all(|other| climb(leaves[other], at, count, &steps) != Some(top)));
                steps.push([0; 32]);
                assert_eq!(climb(leaves[at], at, count, &steps), None);
                steps.truncate(steps.len().saturating_sub(2));
                assert_eq!(climb(leaves[at], at, count, &steps).is_none(), count > 1);
            }
        }
    }
}
