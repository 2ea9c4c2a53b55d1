//! Whole models: which files of a tree carry tensors, and where each tensor is.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::Deserialize;

use super::{Format, detect, read};
use crate::error::{Cause, FormatError, Result};
use crate::io::{ReadAtExt, Tree};
use crate::json::{Object, UniqueMap};
use crate::tensor::{Index, TensorInfo};

/// Largest shard index (`*.safetensors.index.json`) accepted.
const MAX_SHARD_INDEX: u64 = 64 << 20;
const SHARD_INDEX: &str = ".safetensors.index.json";

/// The tensors of a model, file by file.
pub struct ModelIndex {
    files: Vec<(String, Index)>,
    by_name: HashMap<String, Vec<(usize, usize)>>,
}

impl ModelIndex {
    /// Reads every file of the tree that carries tensors, and checks shard indices against the shards.
    ///
    /// A file called `*.safetensors` must be one; others are recognised by their content. All other files
    /// (configuration, tokenizer) are left alone.
    pub fn read(tree: &dyn Tree) -> Result<Self> {
        let mut files = Vec::new();
        for entry in tree.entries() {
            let named = entry.path.ends_with(".safetensors");
            if !named && entry.size < 10 {
                continue;
            }
            let source = tree.open(&entry.path)?;
            if named {
                files.push((entry.path.clone(), super::safetensors::read(&*source)?));
            } else if let Some(Format::Safetensors) = detect(&*source)? {
                files.push((entry.path.clone(), read(&*source)?));
            }
        }
        let mut by_name: HashMap<String, Vec<(usize, usize)>> = HashMap::new();
        for (f, (_, index)) in files.iter().enumerate() {
            for (t, tensor) in index.tensors().iter().enumerate() {
                by_name.entry(tensor.name.clone()).or_default().push((f, t));
            }
        }
        let model = Self { files, by_name };
        for entry in tree.entries().iter().filter(|e| e.path.ends_with(SHARD_INDEX)) {
            model.check_shards(tree, &entry.path)?;
        }
        Ok(model)
    }

    /// The files that carry tensors, each with its index, ordered by path.
    pub fn files(&self) -> &[(String, Index)] {
        &self.files
    }

    /// The index of the file at `path`, if it carries tensors.
    pub fn file(&self, path: &str) -> Option<&Index> {
        let place = self.files.binary_search_by(|(other, _)| other.as_str().cmp(path)).ok()?;
        self.files.get(place).map(|(_, index)| index)
    }

    /// All tensors with the file that holds them.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, &TensorInfo)> {
        self.files.iter().flat_map(|(path, index)| index.tensors().iter().map(move |tensor| (path.as_str(), tensor)))
    }

    /// The tensor called `name` and its file, if exactly one file holds it.
    pub fn tensor(&self, name: &str) -> Option<(&str, &TensorInfo)> {
        let [(f, t)] = self.by_name.get(name)?.as_slice() else { return None };
        let (path, index) = self.files.get(*f)?;
        Some((path, index.tensors().get(*t)?))
    }

    /// A tensor name that more than one file holds, if there is one.
    pub fn ambiguous(&self) -> Option<&str> {
        self.by_name.iter().filter(|(_, places)| places.len() > 1).map(|(name, _)| name.as_str()).min()
    }

    fn check_shards(&self, tree: &dyn Tree, path: &str) -> Result<()> {
        #[derive(Deserialize)]
        struct ShardIndex {
            weight_map: UniqueMap<String>,
        }
        let source = tree.open(path)?;
        let text = source.read_all(MAX_SHARD_INDEX)?;
        let fail = |problem: String| FormatError::ShardIndex(problem).on(source.name());
        let Object(parsed): Object<ShardIndex> = serde_json::from_slice(&text).map_err(|e| fail(e.to_string()))?;
        let folder = path.rsplit_once('/').map_or(String::new(), |(folder, _)| format!("{folder}/"));
        let mut listed: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for (tensor, shard) in &parsed.weight_map.0 {
            listed.entry(shard).or_default().insert(tensor);
        }
        for (shard, tensors) in listed {
            let file = format!("{folder}{shard}");
            let Some(index) = self.file(&file).filter(|_| !shard.contains('/')) else {
                return Err(fail(format!("shard {shard:?} is missing")));
            };
            let held: BTreeSet<&str> = index.tensors().iter().map(|t| t.name.as_str()).collect();
            if let Some(tensor) = tensors.symmetric_difference(&held).next() {
                return Err(fail(format!("tensor {tensor:?} is not where the index says ({shard:?})")));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::error::Error;
    use crate::format::safetensors::{TensorData, to_bytes};
    use crate::io::tree;
    use crate::tensor::Dtype;

    fn shard(names: &[&str]) -> Vec<u8> {
        let tensors: Vec<_> =
            names.iter().map(|name| TensorData { name, dtype: Dtype::U8, shape: &[1], bytes: &[0] }).collect();
        to_bytes(&tensors, &BTreeMap::new()).unwrap()
    }

    #[test]
    fn shards_must_be_what_the_index_says() {
        let home = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: &[u8]| fs::write(home.path().join(name), bytes).unwrap();
        write("config.json", b"{\"hidden_size\": 384, \"architectures\": []}");
        write("one.safetensors", &shard(&["a", "b"]));
        write("two.safetensors", &shard(&["c"]));
        let cause = |index: &str| {
            write("model.safetensors.index.json", index.as_bytes());
            let tree = tree::open(home.path()).unwrap();
            ModelIndex::read(&*tree).map(|model| model.tensors().count())
        };
        assert_eq!(
            cause(
                r#"{"metadata":{},"weight_map":{"a":"one.safetensors","b":"one.safetensors","c":"two.safetensors"}}"#
            )
            .unwrap(),
            3
        );
        for bad in [
            r#"{"weight_map":{"a":"one.safetensors","c":"two.safetensors"}}"#,
            r#"{"weight_map":{"a":"one.safetensors","b":"one.safetensors","d":"one.safetensors"}}"#,
            r#"{"weight_map":{"a":"one.safetensors","b":"two.safetensors","c":"two.safetensors"}}"#,
            r#"{"weight_map":{"a":"../one.safetensors"}}"#,
            r#"{"weight_map":{"a":"three.safetensors"}}"#,
            r#"{"weight_map":{"a":"one.safetensors","\u0061":"two.safetensors"}}"#,
            "{}",
        ] {
            assert!(matches!(cause(bad), Err(Error::Format { cause: FormatError::ShardIndex(_), .. })), "{bad}");
        }
    }
}
