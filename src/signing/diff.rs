//! What changed from one signed version of a model to another, from their signatures alone.

use std::collections::BTreeMap;

use serde::Serialize;

use super::components::Component;
use super::manifest::Manifest;
use super::release::Release;

/// The files and parts in which two signed models differ.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Difference {
    /// Files only the second has.
    pub added: Vec<String>,
    /// Files only the first has.
    pub removed: Vec<String>,
    /// Files that differ; `None` if the two were hashed in different ways, so that nobody can tell.
    pub changed: Option<Vec<String>>,
    /// How many files are the same, as far as can be told.
    pub unchanged: usize,
    /// Chat templates, tokenizers and code that were added, removed or changed, by kind and name, if both have a release.
    pub components: Vec<(String, String)>,
}

impl Difference {
    /// Compares what two signatures list, and two releases if there are two.
    pub fn between(from: (&Manifest, Option<&Release>), to: (&Manifest, Option<&Release>)) -> Self {
        let (old, new) = (files(from.0), files(to.0));
        let only = |these: &Files<'_>, those: &Files<'_>| -> Vec<String> {
            these.keys().filter(|path| !those.contains_key(*path)).map(|path| (*path).to_owned()).collect()
        };
        let both = old.iter().filter_map(|(path, parts)| Some((*path, parts, new.get(path)?)));
        let is_comparable = from.0.hashing() == to.0.hashing();
        let (same, different): (Vec<_>, Vec<_>) = both.partition(|(_, old, new)| old == new);
        Self {
            added: only(&new, &old),
            removed: only(&old, &new),
            changed: is_comparable.then(|| different.into_iter().map(|(path, ..)| path.to_owned()).collect()),
            unchanged: if is_comparable { same.len() } else { 0 },
            components: from.1.zip(to.1).map_or_else(Vec::new, |(from, to)| components(from, to)),
        }
    }

    /// Whether there is none, as far as can be told.
    pub fn is_none(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty() && self.changed.as_ref().is_some_and(Vec::is_empty)
    }
}

/// The digests of each file, part by part.
type Files<'a> = BTreeMap<&'a str, BTreeMap<u64, &'a [u8]>>;

fn files(manifest: &Manifest) -> Files<'_> {
    let mut files = Files::new();
    for resource in manifest.resources() {
        let start = resource.shard.as_ref().map_or(0, |shard| shard.start);
        files.entry(&resource.path).or_default().insert(start, &resource.digest);
    }
    files
}

fn components(from: &Release, to: &Release) -> Vec<(String, String)> {
    let missing = |these: &[Component], those: &[Component]| -> Vec<(String, String)> {
        let missing = these.iter().filter(|component| !those.contains(component));
        missing.map(|component| (component.kind.word().to_owned(), component.name.clone())).collect()
    };
    let (from, to) = (from.components(), to.components());
    let mut components = [missing(from, to), missing(to, from)].concat();
    components.sort();
    components.dedup();
    components
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signing::{HashType, Hashing, Resource};

    fn manifest(hash: HashType, files: &[(&str, u8)]) -> Manifest {
        let resources = files.iter().map(|(path, byte)| Resource {
            path: (*path).into(),
            shard: None,
            digest: vec![*byte; hash.size()],
        });
        let hashing = Hashing { hash, shard_size: None };
        Manifest {
            name: "m".into(),
            hashing,
            resources: resources.collect(),
            ignore_paths: Vec::new(),
            code: Vec::new(),
        }
    }

    #[test]
    fn files_are_added_removed_changed_or_the_same() {
        let old = manifest(HashType::Sha256, &[("a", 1), ("b", 2), ("c", 3)]);
        let new = manifest(HashType::Sha256, &[("b", 2), ("c", 4), ("d", 5)]);
        let found = Difference::between((&old, None), (&new, None));
        assert_eq!((found.added, found.removed), (vec!["d".to_owned()], vec!["a".to_owned()]));
        assert_eq!((found.changed, found.unchanged), (Some(vec!["c".to_owned()]), 1));
        assert!(Difference::between((&old, None), (&old, None)).is_none());
        let other = manifest(HashType::Blake3, &[("a", 1), ("b", 2), ("c", 3)]);
        let unknown = Difference::between((&old, None), (&other, None));
        assert!(unknown.changed.is_none() && !unknown.is_none());
    }
}
