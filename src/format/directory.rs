//! Whole models: which files of a tree carry tensors, and where each tensor is.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use serde::Deserialize;

use super::checked;
use super::gguf::{self, Split};
use super::pickle::is_inert;
use super::{Format, detect, numpy, onnx};
use crate::error::{Cause, Error, FormatError, Result};
use crate::io::tree::is_canonical;
use crate::io::{ReadAt, Tree};
use crate::json::{Object, UniqueMap};
use crate::tensor::{Index, Storage, TensorInfo};

/// Largest shard index (`*.safetensors.index.json`) accepted.
const MAX_SHARD_INDEX: u64 = 64 << 20;
const SHARD_INDEX: &str = ".safetensors.index.json";

/// One file that carries tensors.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ModelFile {
    /// Where the file lies in the model.
    pub path: String,
    /// Its format; of a file of ONNX external data, that of the file which describes it.
    pub format: Format,
    /// The tensors whose bytes it holds.
    pub index: Index,
}

/// The tensors of a model, file by file.
pub struct ModelIndex {
    files: Vec<ModelFile>,
    refused: Vec<(String, FormatError)>,
    by_name: HashMap<String, Vec<(usize, usize)>>,
}

impl ModelIndex {
    /// Reads every file of the tree that carries tensors, and checks shard indices against the shards.
    ///
    /// Files are recognised by their content, but one named like a format (`*.safetensors`, `*.gguf`, `*.onnx`, ..) must
    /// be of it. Files of a directory that hold code, or a variant that is not read here, are left closed and
    /// [listed](Self::refused); all other files (configuration, tokenizer) are left alone.
    pub fn read(tree: &dyn Tree) -> Result<Self> {
        let (mut files, mut refused, mut suspicious) = (Vec::new(), Vec::new(), Vec::new());
        for entry in tree.entries() {
            let source = tree.open(&entry.path)?;
            let path = entry.path.clone();
            let read = match Format::of_name(&path) {
                Some(format) => format.read(&*source).map(|index| Some((format, index))),
                None => match detect(&*source)? {
                    Some(format) => format.read(&*source).map(|index| Some((format, index))),
                    None => Ok(None),
                },
            };
            match read {
                Ok(Some((format, mut index))) => {
                    if format == Format::Npy && !tree.is_single_file() {
                        index.rename(numpy::ARRAY, path.strip_suffix(".npy").unwrap_or(&path));
                    }
                    files.push(ModelFile { path, format, index });
                }
                Ok(None) if is_named_pickle(&path) && !is_inert(&*source)? => suspicious.push(path),
                Ok(None) => {}
                Err(Error::Format { cause, .. }) if is_left_closed(&cause) && !tree.is_single_file() => {
                    refused.push((path, cause));
                }
                Err(error) => return Err(error),
            }
        }
        if !tree.is_single_file() {
            files = with_external_data(tree, files, &refused)?;
            suspicious.retain(|path| files.binary_search_by(|file| file.path.cmp(path)).is_err());
            let why = "loaders take it for a pickle, to go by its name, and it is no checkpoint";
            refused.extend(suspicious.into_iter().map(|path| (path, FormatError::Executable(why.into()))));
            refused.sort_by(|a, b| a.0.cmp(&b.0));
        }
        let mut by_name: HashMap<String, Vec<(usize, usize)>> = HashMap::new();
        for (f, file) in files.iter().enumerate() {
            for (t, tensor) in file.index.tensors().iter().enumerate() {
                by_name.entry(tensor.name.clone()).or_default().push((f, t));
            }
        }
        let model = Self { files, refused, by_name };
        for entry in tree.entries().iter().filter(|e| e.path.ends_with(SHARD_INDEX)) {
            model.check_shards(tree, &entry.path)?;
        }
        if !tree.is_single_file() {
            model.check_splits()?;
        }
        Ok(model)
    }

    /// The files that carry tensors, ordered by path.
    pub fn files(&self) -> &[ModelFile] {
        &self.files
    }

    /// The file at `path`, if it carries tensors.
    pub fn file(&self, path: &str) -> Option<&ModelFile> {
        let place = self.files.binary_search_by(|file| file.path.as_str().cmp(path)).ok()?;
        self.files.get(place)
    }

    /// Files that look like models and were left closed, each with the reason, ordered by path.
    pub fn refused(&self) -> &[(String, FormatError)] {
        &self.refused
    }

    /// Why the file at `path` was left closed, if it was.
    pub fn refusal(&self, path: &str) -> Option<&FormatError> {
        let place = self.refused.binary_search_by(|(other, _)| other.as_str().cmp(path)).ok()?;
        self.refused.get(place).map(|(_, cause)| cause)
    }

    /// All tensors with the file that holds them.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, &TensorInfo)> {
        self.files.iter().flat_map(|file| file.index.tensors().iter().map(|tensor| (file.path.as_str(), tensor)))
    }

    /// The tensor called `name` and its file. Of several files that hold one, the only one of the preferred
    /// [`Format`] counts, as where a model lies beside its conversions; if there is more than one, none does.
    pub fn tensor(&self, name: &str) -> Option<(&str, &TensorInfo)> {
        let places = self.by_name.get(name)?;
        let found = places.iter().filter_map(|(f, t)| Some((self.files.get(*f)?, *t)));
        let preferred = found.clone().map(|(file, _)| file.format).min()?;
        let mut found = found.filter(|(file, _)| file.format == preferred);
        let ((file, t), None) = (found.next()?, found.next()) else { return None };
        Some((&file.path, file.index.tensors().get(t)?))
    }

    /// Whether some file holds a tensor called `name`.
    pub fn contains(&self, name: &str) -> bool {
        self.by_name.contains_key(name)
    }

    /// A tensor name that more than one file holds, if there is one.
    pub fn ambiguous(&self) -> Option<&str> {
        self.by_name.iter().filter(|(_, places)| places.len() > 1).map(|(name, _)| name.as_str()).min()
    }

    /// Checks that the parts of a GGUF model that was split are all here, under the names that `llama.cpp` gives them.
    fn check_splits(&self) -> Result<()> {
        let mut models: BTreeMap<(&str, u64, u64), (u64, HashSet<&str>)> = BTreeMap::new();
        for file in self.files.iter().filter(|file| file.format == Format::Gguf) {
            let Some(Split { number, count, tensors }) = gguf::split(&file.index) else { continue };
            let ending = format!("-{:05}-of-{count:05}.gguf", number.saturating_add(1));
            let Some(stem) = file.path.strip_suffix(&ending).filter(|_| number < count) else {
                let problem = format!("the name of part {number} does not end in {ending:?}");
                return Err(FormatError::ShardIndex(problem).on(&file.path));
            };
            let (parts, held) = models.entry((stem, count, tensors)).or_default();
            *parts += 1;
            if let Some(twin) = file.index.tensors().iter().find(|tensor| !held.insert(&tensor.name)) {
                return Err(FormatError::Duplicate(twin.name.clone()).on(&file.path));
            }
        }
        for ((stem, count, tensors), (parts, held)) in models {
            if (parts, held.len() as u64) != (count, tensors) {
                let held = held.len();
                let problem = format!("{parts} of {count} parts are here, with {held} of {tensors} tensors");
                return Err(FormatError::ShardIndex(problem).on(format!("{stem}-*-of-{count:05}.gguf")));
            }
        }
        Ok(())
    }

    fn check_shards(&self, tree: &dyn Tree, path: &str) -> Result<()> {
        #[derive(Deserialize)]
        struct ShardIndex {
            weight_map: UniqueMap<String>,
        }
        let source = tree.open(path)?;
        let fail = |problem: String| FormatError::ShardIndex(problem).on(source.name());
        let size = source.size();
        if size > MAX_SHARD_INDEX {
            return Err(FormatError::HeaderTooLarge { size, limit: MAX_SHARD_INDEX }.on(source.name()));
        }
        let text = checked::text(&*source, 0..size).map_err(|error| match error {
            Error::Format { cause, .. } => fail(cause.to_string()),
            other => other,
        })?;
        let Object(parsed): Object<ShardIndex> = serde_json::from_slice(&text).map_err(|e| fail(e.to_string()))?;
        let folder = path.rsplit_once('/').map_or(String::new(), |(folder, _)| format!("{folder}/"));
        let mut listed: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for (tensor, shard) in &parsed.weight_map.0 {
            listed.entry(shard).or_default().insert(tensor);
        }
        for (shard, tensors) in listed {
            let file = format!("{folder}{shard}");
            let Some(file) = self.file(&file).filter(|_| !shard.contains('/')) else {
                return Err(fail(format!("shard {shard:?} is missing")));
            };
            let held: BTreeSet<&str> = file.index.tensors().iter().map(|t| t.name.as_str()).collect();
            if let Some(tensor) = tensors.symmetric_difference(&held).next() {
                return Err(fail(format!("tensor {tensor:?} is not where the index says ({shard:?})")));
            }
        }
        Ok(())
    }
}

/// Whether a file is refused for what it is rather than for being broken: no reason to refuse the rest of its directory.
fn is_left_closed(cause: &FormatError) -> bool {
    matches!(cause, FormatError::Archive(_) | FormatError::Executable(_) | FormatError::Unsupported(_))
}

/// Whether loaders take a file of this name for a pickle. Not all of them can be told by their content.
pub(super) fn is_named_pickle(path: &str) -> bool {
    const EXTENSIONS: [&str; 14] =
        ["bin", "ckpt", "cloudpickle", "dill", "joblib", "p", "pck", "pckl", "pickle", "pk", "pkl", "pt", "pth", "sav"];
    let (_, extension) = path.rsplit_once('.').unwrap_or_default();
    EXTENSIONS.contains(&extension.to_ascii_lowercase().as_str())
}

/// The same files, with every tensor under the file that holds its bytes.
fn with_external_data(
    tree: &dyn Tree,
    mut files: Vec<ModelFile>,
    refused: &[(String, FormatError)],
) -> Result<Vec<ModelFile>> {
    let sizes: BTreeMap<&str, u64> = tree.entries().iter().map(|entry| (entry.path.as_str(), entry.size)).collect();
    let closed = refused.iter().map(|(path, _)| path);
    let models: BTreeSet<String> = files.iter().map(|file| &file.path).chain(closed).cloned().collect();
    let mut external: BTreeMap<String, (Format, Vec<TensorInfo>)> = BTreeMap::new();
    for ModelFile { path, format, index } in &mut files {
        let folder = path.rsplit_once('/').map_or(String::new(), |(folder, _)| format!("{folder}/"));
        for tensor in index.tensors() {
            let Storage::External(inside) = &tensor.storage else { continue };
            let home = format!("{folder}{inside}");
            let problem = match sizes.get(home.as_str()) {
                _ if !is_canonical(&home) => Some("lies outside of the directory"),
                None => Some("is missing"),
                Some(size) if tensor.span.end > *size => Some("lies beyond the end of that file"),
                Some(_) if models.contains(&home) => Some("would be that of another model"),
                Some(_) => None,
            };
            if let Some(problem) = problem {
                let (tensor, inside) = (tensor.name.clone(), inside.clone());
                return Err(FormatError::External { tensor, path: inside, problem }.on(path));
            }
            let stored = tensor.clone().stored(Storage::External(home.clone()));
            external.entry(home).or_insert((*format, Vec::new())).1.push(stored);
        }
        index.retain(|tensor| !matches!(tensor.storage, Storage::External(_)));
    }
    for (path, (format, mut tensors)) in external {
        tensors.sort_by(|a, b| a.name.cmp(&b.name));
        tensors.dedup(); // two graphs may share their weights
        onnx::check_shared(&tensors).map_err(|cause| cause.on(&path))?;
        let tensors = tensors.into_iter().map(|tensor| tensor.stored(Storage::Plain)).collect();
        let index = Index::new(tensors, BTreeMap::new()).map_err(|name| FormatError::Duplicate(name).on(&path))?;
        files.push(ModelFile { path, format, index });
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
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

    #[test]
    fn a_model_in_several_formats_is_read_in_the_preferred_one() {
        let home = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: &[u8]| fs::write(home.path().join(name), bytes).unwrap();
        let open = || ModelIndex::read(&*tree::open(home.path()).unwrap()).unwrap();
        let array = b"\x93NUMPY\x01\0\x76\0{'descr': '|u1', 'fortran_order': False, 'shape': (1,), }";
        let mut array = array.to_vec();
        array.resize(127, b' ');
        array.extend(b"\n\x07");
        write("array.npy", &array);
        write("b.safetensors", &shard(&["array", "other"]));
        assert_eq!(open().tensor("array").unwrap().0, "b.safetensors");
        assert_eq!(open().ambiguous(), Some("array"));
        write("c.safetensors", &shard(&["array"]));
        assert!(open().tensor("array").is_none() && open().contains("array"));
        assert_eq!(open().tensor("other").unwrap().0, "b.safetensors");
    }
}
