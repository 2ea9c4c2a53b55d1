//! A signed model as the tree of its files, each of which is what was signed whenever it is read.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use super::digest::Scratch;
use super::manifest::{Hashing, Manifest, each_file, unless_changed};
use super::outboard::Outboard;
use super::ranges::{Signed, VerifiedAt};
use crate::error::{Cause, Result, VerifyError};
use crate::io::progress::step;
use crate::io::tree::{Handles, MAX_IN_MEMORY};
use crate::io::{Entry, Progress, ReadAt, ReadAtExt, SliceAt, Tree};

/// The files of a model that a [`Manifest`] lists, and no others; of a manifest of shards, which cannot list them, empty
/// ones too.
///
/// Each file is opened once, and read through that handle ever after. Those of up to 64 KiB are verified and held in
/// memory; of larger ones every read is verified in the caller's buffer, and fails with [`VerifyError::DigestMismatch`]
/// if it is not what was signed, whatever became of the file meanwhile. Only what [authenticates
/// itself](ReadAt::is_authenticated) is read as it is once it was hashed.
///
/// Whether the set of files is complete, and nothing was added, is for [`Policy`](super::Policy) to say.
///
/// ```
/// use weightmark::io::{ReadAtExt, Tree, tree};
/// use weightmark::signing::{Manifest, Scope, VerifiedTree};
///
/// # let model = tempfile::tempdir()?;
/// # let model = model.path();
/// # std::fs::write(model.join("vocabulary"), vec![7; 1 << 20])?;
/// let (manifest, outboard) = Manifest::with_outboard(&*tree::open(model)?, &Scope::default(), &())?;
///
/// let verified = VerifiedTree::lazy(tree::open(model)?, &manifest, Some(outboard.source()))?;
/// let file = verified.open("vocabulary")?; // reads the values of its groups, and the last group
/// assert_eq!(file.read_span(1000..1002)?, [7, 7]); // reads one group of 64 KiB
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct VerifiedTree {
    tree: Box<dyn Tree>,
    hashing: Hashing,
    files: BTreeMap<String, File>,
    entries: Vec<Entry>,
    outboard: Option<Outboard>,
    handles: Handles,
}

/// What was signed of a file, and its size where that says it.
#[derive(Default)]
struct File {
    parts: Vec<(u64, Vec<u8>)>,
    size: Option<u64>,
}

/// When a file is hashed.
#[derive(Clone, Copy, Eq, PartialEq)]
enum When {
    Now,
    WhereRead,
}

impl VerifiedTree {
    /// Verifies every file now, in one pass, and keeps a value for each 64 KiB (0.05 % of the size in memory), so that
    /// later reads are verified too. Fails with [`VerifyError::DigestMismatch`] for a file that is not what was signed,
    /// and [`VerifyError::Changed`] for one that changes meanwhile.
    pub fn eager(tree: Box<dyn Tree>, manifest: &Manifest, progress: &dyn Progress) -> Result<Self> {
        let this = Self::lazy(tree, manifest, None)?;
        let files = this.entries.iter().map(|entry| (entry.path.clone(), ()));
        each_file(&*this.tree, files, progress, |path, _, scratch| {
            this.handles.get_or_open(&path, || this.verify(&path, When::Now, scratch, progress)).map(drop)
        })?;
        Ok(this)
    }

    /// Verifies files where they are read. With an `outboard`, of a model signed by whole files and BLAKE3, a read costs
    /// the groups of 64 KiB that it touches; with shards, those it touches, of which larger ones than 1 MiB are
    /// hashed once. Files that have neither are hashed whole when they are first opened.
    pub fn lazy(tree: Box<dyn Tree>, manifest: &Manifest, outboard: Option<Arc<dyn ReadAt>>) -> Result<Self> {
        let outboard = outboard.map(|source| Outboard::read_from(source, manifest, &*tree)).transpose()?;
        let mut files: BTreeMap<String, File> = BTreeMap::new();
        for resource in manifest.resources_in(&*tree)? {
            let file = files.entry(resource.path).or_default();
            let start = resource.shard.as_ref().map_or(0, |shard| shard.start);
            file.parts.push((start, resource.digest));
            file.size = file.size.max(resource.shard.map(|shard| shard.end));
        }
        files.values_mut().for_each(|file| file.parts.sort());
        let mut entries = Vec::new();
        let hashing = manifest.hashing();
        for entry in tree.entries() {
            if hashing.shard_size.is_some() && entry.size == 0 && !files.contains_key(&entry.path) {
                files.insert(entry.path.clone(), File { parts: Vec::new(), size: Some(0) });
            }
            if files.contains_key(&entry.path) {
                entries.push(entry.clone());
            }
        }
        if entries.len() < files.len() {
            let there: HashSet<&str> = entries.iter().map(|entry| entry.path.as_str()).collect();
            let missing = files.into_keys().find(|path| !there.contains(path.as_str())).unwrap_or_default();
            return Err(VerifyError::MissingFile { path: missing }.on(tree.name()));
        }
        Ok(Self { tree, hashing, files, entries, outboard, handles: Handles::default() })
    }

    /// Opens a file such that all that is read of it is what was signed.
    fn verify(
        &self,
        path: &str,
        when: When,
        scratch: &mut Scratch,
        progress: &dyn Progress,
    ) -> Result<Arc<dyn ReadAt>> {
        let Some(file) = self.files.get(path) else {
            let is_there = self.tree.entries().iter().any(|entry| entry.path == path);
            let path = path.to_owned();
            let cause = if is_there { VerifyError::ExtraFile { path } } else { VerifyError::MissingFile { path } };
            return Err(cause.on(self.name()));
        };
        let source = self.tree.open(path)?;
        unless_changed(&*source, path, self.name(), || {
            self.verified(Arc::clone(&source), path, file, when, scratch, progress)
        })
    }

    fn verified(
        &self,
        source: Arc<dyn ReadAt>,
        path: &str,
        file: &File,
        when: When,
        scratch: &mut Scratch,
        progress: &dyn Progress,
    ) -> Result<Arc<dyn ReadAt>> {
        let mismatch = || VerifyError::DigestMismatch { path: path.to_owned() }.on(self.name());
        if file.size.is_some_and(|size| size != source.size()) {
            return Err(mismatch());
        }
        let signed = Signed {
            hash: self.hashing.hash,
            part: self.hashing.shard_size.unwrap_or(u64::MAX),
            digests: file.parts.iter().map(|(_, digest)| digest.clone()).collect(),
        };
        if source.size() <= MAX_IN_MEMORY {
            let bytes = source.read_all(MAX_IN_MEMORY)?;
            if !signed.is_of(&bytes) {
                return Err(mismatch());
            }
            step(progress, bytes.len() as u64)?;
            return Ok(Arc::new(SliceAt::named(bytes, source.name())));
        }
        if when == When::WhereRead {
            if let (Some(outboard), [(_, digest)]) = (&self.outboard, &*file.parts) {
                let values = outboard.values(path, digest)?;
                return Ok(Arc::new(VerifiedAt::with_values(source, path, signed, values)?));
            }
            if self.hashing.shard_size.is_some() {
                return Ok(Arc::new(VerifiedAt::lazy(source, path, signed)));
            }
        }
        let verified = VerifiedAt::by_groups(Arc::clone(&source), path, signed);
        if source.is_authenticated() {
            verified.hash(scratch, progress)?;
            return Ok(source);
        }
        verified.take_values(scratch, progress)?;
        Ok(Arc::new(verified))
    }
}

impl Tree for VerifiedTree {
    fn entries(&self) -> &[Entry] {
        &self.entries
    }

    fn open(&self, path: &str) -> Result<Arc<dyn ReadAt>> {
        self.handles.get_or_open(path, || self.verify(path, When::WhereRead, &mut Scratch::default(), &()))
    }

    fn name(&self) -> &str {
        self.tree.name()
    }

    fn closed(&self) -> &[Entry] {
        self.tree.closed()
    }

    fn is_single_file(&self) -> bool {
        self.tree.is_single_file()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::FileExt;
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

    use rayon::prelude::*;

    use super::*;
    use crate::error::Error;
    use crate::io::tree::{Directory, SingleFile};
    use crate::signing::digest::PIECE;
    use crate::signing::groups::GROUP;
    use crate::signing::{HashType, Scope};

    fn noise(len: usize) -> Vec<u8> {
        (0..len as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
    }

    fn memory(bytes: impl AsRef<[u8]> + Send + Sync + 'static) -> Box<dyn Tree> {
        Box::new(SingleFile::new("weights", Arc::new(SliceAt::new(bytes))))
    }

    fn whole(hash: HashType) -> Hashing {
        Hashing { hash, shard_size: None }
    }

    fn shards(hash: HashType, size: usize) -> Hashing {
        Hashing { hash, shard_size: Some(size as u64) }
    }

    fn cause<T>(result: Result<T>) -> VerifyError {
        match result.map(drop).unwrap_err() {
            Error::Verify { cause, .. } => cause,
            other => panic!("{other}"),
        }
    }

    fn mismatch(path: &str) -> VerifyError {
        VerifyError::DigestMismatch { path: path.into() }
    }

    /// Each way to verify a tree, made anew by `tree`, whose files are signed as they are now.
    fn ways(tree: &dyn Fn() -> Box<dyn Tree>) -> Vec<(String, VerifiedTree)> {
        let (manifest, outboard) = Manifest::with_outboard(&*tree(), &Scope::default(), &()).unwrap();
        assert_eq!(manifest, Manifest::of_tree(&*tree(), whole(HashType::Blake3), &Scope::default(), &()).unwrap());
        let outboard = Some(outboard.source());
        let mut ways = vec![("outboard".to_owned(), VerifiedTree::lazy(tree(), &manifest, outboard).unwrap())];
        let hashings = HashType::ALL.into_iter().flat_map(|hash| {
            [whole(hash), shards(hash, 40_000), shards(hash, GROUP), shards(hash, (1 << 20) + GROUP / 2)]
        });
        for hashing in hashings {
            let manifest = Manifest::of_tree(&*tree(), hashing, &Scope::default(), &());
            let Ok(manifest) = manifest else { continue }; // of an empty file there are no shards
            ways.push((format!("eager {hashing:?}"), VerifiedTree::eager(tree(), &manifest, &()).unwrap()));
            ways.push((format!("lazy {hashing:?}"), VerifiedTree::lazy(tree(), &manifest, None).unwrap()));
        }
        ways
    }

    #[test]
    fn all_ways_read_what_was_signed_whatever_the_size() {
        let around = [GROUP, 2 * GROUP, PIECE, 1 << 20, (1 << 20) + 3 * PIECE];
        let sizes = around.into_iter().flat_map(|size| size - 1..=size + 1);
        for size in [0, 1].into_iter().chain(sizes) {
            let bytes = noise(size);
            for (way, verified) in ways(&|| memory(noise(size))) {
                let file = verified.open("weights").unwrap();
                assert_eq!(file.size(), size as u64);
                let cuts = [0, 1, size / 3, size.saturating_sub(GROUP + 1), size.saturating_sub(1), size];
                for (start, end) in cuts.iter().flat_map(|start| cuts.map(|end| (*start, end))) {
                    if start <= end && end <= size {
                        let read = file.read_span(start as u64..end as u64).unwrap();
                        assert!(read == bytes[start..end], "{way}: {start}..{end} of {size}");
                    }
                }
                assert!(matches!(file.read_at(size as u64, &mut [0]), Err(Error::Io { .. })));
            }
        }
    }

    #[test]
    fn no_flipped_byte_is_handed_out() {
        let bytes = noise(GROUP + 100);
        let (manifest, outboard) = Manifest::with_outboard(&*memory(bytes.clone()), &Scope::default(), &()).unwrap();
        let eager =
            Manifest::of_tree(&*memory(bytes.clone()), whole(HashType::Sha256), &Scope::default(), &()).unwrap();
        (0..bytes.len()).into_par_iter().for_each(|i| {
            let mut bytes = bytes.clone();
            bytes[i] ^= 1;
            let lazy = VerifiedTree::lazy(memory(bytes.clone()), &manifest, Some(outboard.source())).unwrap();
            let file = lazy.open("weights");
            if i >= GROUP {
                return assert_eq!(cause(file), mismatch("weights")); // the last group is read at once
            }
            let (file, mut out) = (file.unwrap(), bytes.clone());
            assert_eq!(cause(file.read_at(0, &mut out)), mismatch("weights"), "{i}");
            assert!(out.iter().all(|byte| *byte == 0), "{i}");
            file.read_at(GROUP as u64, &mut out[..100]).unwrap();
            if i % 64 == 0 {
                assert_eq!(cause(VerifiedTree::eager(memory(bytes), &eager, &())), mismatch("weights"));
            }
        });
        let values = outboard.source().read_all(u64::MAX).unwrap();
        assert_eq!(values.len(), 16 + 2 * 32);
        for i in 0..values.len() {
            let mut values = values.clone();
            values[i] ^= 1;
            let tree = VerifiedTree::lazy(memory(bytes.clone()), &manifest, Some(Arc::new(SliceAt::new(values))));
            let refused = cause(tree.and_then(|tree| tree.open("weights")));
            assert!(matches!(refused, VerifyError::Outboard(_)), "{i}: {refused}");
        }
    }

    #[test]
    fn lengths_that_do_not_fit_are_refused() {
        let bytes = noise(4 * GROUP);
        let (manifest, outboard) = Manifest::with_outboard(&*memory(bytes.clone()), &Scope::default(), &()).unwrap();
        let values = outboard.source().read_all(u64::MAX).unwrap();
        let outboard = |values: &[u8]| -> Option<Arc<dyn ReadAt>> { Some(Arc::new(SliceAt::new(values.to_vec()))) };
        let open = |bytes: &[u8], values: &[u8]| {
            let tree = VerifiedTree::lazy(memory(bytes.to_vec()), &manifest, outboard(values))?;
            tree.open("weights")
        };
        open(&bytes, &values).unwrap();
        for len in (0..values.len()).chain([values.len() + 1, values.len() + 32]) {
            let mut values = values.clone();
            values.resize(len, 0);
            assert!(matches!(cause(open(&bytes, &values)), VerifyError::Outboard(_)), "{len}");
        }
        // a file of half the groups, with the values of their parents in place of their own: the root is right
        let forged = [&values[..16], &parent(&values[16..80]), &parent(&values[80..])].concat();
        assert_eq!(cause(open(&bytes[..2 * GROUP], &forged)), mismatch("weights"));
        for len in [4 * GROUP - 1, 3 * GROUP + 1] {
            assert_eq!(cause(open(&bytes[..len], &values)), mismatch("weights"), "{len}");
        }
        for len in [GROUP, GROUP + 1, 3 * GROUP] {
            assert!(matches!(cause(open(&bytes[..len], &values)), VerifyError::Outboard(_)), "{len}");
        }
        let longer = [&bytes[..], &[0]].concat();
        assert!(matches!(cause(open(&longer, &values)), VerifyError::Outboard(_)));
        for size in [100, GROUP, 3 * GROUP, 5 * GROUP] {
            let manifest =
                Manifest::of_tree(&*memory(bytes.clone()), shards(HashType::Sha256, size), &Scope::default(), &())
                    .unwrap();
            for bytes in [&longer, &bytes[1..], &bytes[..GROUP]] {
                let tree = VerifiedTree::lazy(memory(bytes.to_vec()), &manifest, None).unwrap();
                assert_eq!(cause(tree.open("weights")), mismatch("weights"), "{size}");
            }
        }
        let of_sha256 = Manifest::of_tree(&*memory(bytes.clone()), Hashing::default(), &Scope::default(), &()).unwrap();
        let refused = VerifiedTree::lazy(memory(bytes), &of_sha256, outboard(&values));
        assert!(matches!(cause(refused), VerifyError::Outboard(_)));
    }

    fn parent(values: &[u8]) -> [u8; 32] {
        let [left, right] = [&values[..32], &values[32..]].map(|value| value.try_into().unwrap());
        blake3::hazmat::merge_subtrees_non_root(&left, &right, blake3::hazmat::Mode::Hash)
    }

    #[test]
    fn whoever_writes_behind_an_open_model_changes_nothing_that_is_handed_out() {
        let home = tempfile::tempdir().unwrap();
        let (path, size) = (home.path().join("weights"), 3 << 20);
        let bytes = noise(size);
        let open = || -> Box<dyn Tree> { Box::new(Directory::open(home.path()).unwrap()) };
        fs::write(&path, &bytes).unwrap();
        for (way, verified) in ways(&open) {
            fs::write(home.path().join("weights"), &bytes).unwrap();
            let file = verified.open("weights").unwrap();
            file.read_at(0, &mut vec![0; size]).unwrap(); // large shards are hashed at their first read
            let writer = fs::File::options().write(true).open(&path).unwrap();
            for at in [0, GROUP - 1, GROUP, 40_000, 1 << 20, size / 2 + 7, size - 1] {
                writer.write_all_at(&[!bytes[at]], at as u64).unwrap();
                for (start, len) in [(at, 1), (at.saturating_sub(100_000), 100_001), (0, size)] {
                    let mut out = vec![1; len];
                    let read = file.read_at(start as u64, &mut out);
                    assert_eq!(cause(read), mismatch("weights"), "{way}: {at} in {len} from {start}");
                    assert!(out.iter().all(|byte| *byte == 0), "{way}");
                }
                let elsewhere = if at < size / 2 { size - 5 } else { 5 };
                let mut out = [0; 3];
                file.read_at(elsewhere as u64, &mut out).unwrap();
                assert_eq!(out, bytes[elsewhere..elsewhere + 3]);
                writer.write_all_at(&bytes[at..=at], at as u64).unwrap();
                file.read_at(0, &mut vec![0; size]).unwrap();
            }
            writer.set_len(1 << 20).unwrap();
            let mut out = vec![1; size];
            assert!(matches!(file.read_at(0, &mut out), Err(Error::Io { .. })) && out.iter().all(|byte| *byte == 0));
            file.read_at(0, &mut [0; 10]).unwrap();
        }
    }

    /// Does something to the files once the first bytes were hashed.
    struct Meanwhile<F>(AtomicBool, F);

    impl<F: Fn() + Sync> Progress for Meanwhile<F> {
        fn advance(&self, _: u64) {
            if !self.0.swap(true, Ordering::SeqCst) {
                (self.1)();
            }
        }
    }

    #[test]
    fn a_file_that_changes_while_it_is_hashed_is_refused() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("weights");
        let tree = || -> Box<dyn Tree> { Box::new(Directory::open(home.path()).unwrap()) };
        let bytes = noise(4 * PIECE + 1);
        let changes: [&(dyn Fn(&fs::File) + Sync); 4] = [
            &|file| file.write_all_at(b"changed", 4 * PIECE as u64 - 9).unwrap(),
            &|file| file.write_all_at(b"changed", 0).unwrap(), // what was hashed already: the digest is right
            &|file| file.set_len(PIECE as u64).unwrap(),
            &|file| file.write_all_at(b"appended", 4 * PIECE as u64 + 1).unwrap(),
        ];
        for change in changes {
            for hashing in HashType::ALL.into_iter().flat_map(|hash| [whole(hash), shards(hash, PIECE)]) {
                type Job<'a> = &'a dyn Fn(&dyn Progress) -> Result<()>;
                fs::write(&path, &bytes).unwrap();
                let manifest = Manifest::of_tree(&*tree(), hashing, &Scope::default(), &()).unwrap();
                let key = crate::keys::SigningKey::generate(crate::keys::Algorithm::Ed25519).unwrap();
                let signatures = crate::signing::Signatures::new().and(None, key.sign(&manifest).unwrap());
                let policy = crate::signing::Policy::require(key.verifying_key());
                let jobs: [Job<'_>; 4] = [
                    &|progress| Manifest::of_tree(&*tree(), hashing, &Scope::default(), progress).map(drop),
                    &|progress| Manifest::with_outboard(&*tree(), &Scope::default(), progress).map(drop),
                    &|progress| VerifiedTree::eager(tree(), &manifest, progress).map(drop),
                    &|progress| policy.verify_tree(&*tree(), &signatures, progress).map(drop),
                ];
                for job in jobs {
                    fs::write(&path, &bytes).unwrap();
                    std::thread::sleep(std::time::Duration::from_millis(5)); // times of older kernels are coarse
                    let meanwhile = Meanwhile(AtomicBool::new(false), || {
                        change(&fs::File::options().write(true).open(&path).unwrap());
                    });
                    assert_eq!(cause(job(&meanwhile)), VerifyError::Changed { path: "weights".into() }, "{hashing:?}");
                }
            }
        }
    }

    #[test]
    fn readers_on_many_threads_agree() {
        let bytes = noise(5 << 20);
        for (way, verified) in ways(&|| memory(noise(5 << 20))) {
            std::thread::scope(|scope| {
                for reader in 0..4 {
                    let (verified, bytes, way) = (&verified, &bytes, &way);
                    scope.spawn(move || {
                        let file = verified.open("weights").unwrap();
                        for i in 0..20 {
                            let start = (reader * 977_777 + i * 131_071) % bytes.len();
                            let end = bytes.len().min(start + (i * 40_009) % (2 << 20));
                            assert!(file.read_span(start as u64..end as u64).unwrap() == bytes[start..end], "{way}");
                        }
                    });
                }
            });
        }
    }

    #[test]
    fn only_files_that_were_signed_are_handed_out() {
        let home = tempfile::tempdir().unwrap();
        let open = || -> Box<dyn Tree> { Box::new(Directory::open(home.path()).unwrap()) };
        fs::write(home.path().join("a"), "signed").unwrap();
        fs::write(home.path().join("b"), "").unwrap();
        let of_files = Manifest::of_tree(&*open(), Hashing::default(), &Scope::default(), &()).unwrap();
        let of_shards = Manifest::of_tree(&*open(), shards(HashType::Sha256, 4), &Scope::default(), &()).unwrap();
        fs::write(home.path().join("c"), "").unwrap();
        fs::write(home.path().join("d"), "added").unwrap();
        for (manifest, paths) in [(&of_files, &["a", "b"][..]), (&of_shards, &["a", "b", "c"])] {
            let verified = [
                VerifiedTree::eager(open(), manifest, &()).unwrap(),
                VerifiedTree::lazy(open(), manifest, None).unwrap(),
            ];
            for verified in verified {
                let listed: Vec<_> = verified.entries().iter().map(|entry| entry.path.as_str()).collect();
                assert_eq!(listed, paths);
                assert!(paths.iter().all(|path| verified.open(path).is_ok()));
                assert_eq!(cause(verified.open("d")), VerifyError::ExtraFile { path: "d".into() });
                assert_eq!(cause(verified.open("e")), VerifyError::MissingFile { path: "e".into() });
                fs::write(home.path().join("a"), "SIGNED").unwrap();
                assert_eq!(verified.open("a").unwrap().read_all(9).unwrap(), b"signed"); // held in memory
                fs::write(home.path().join("a"), "signed").unwrap();
            }
        }
        fs::write(home.path().join("c"), "filled").unwrap();
        let tree = open();
        fs::write(home.path().join("c"), "").unwrap();
        let verified = VerifiedTree::lazy(open(), &of_shards, None).unwrap();
        fs::write(home.path().join("c"), "filled").unwrap();
        assert_eq!(cause(verified.open("c")), mismatch("c"));
        assert!(!VerifiedTree::lazy(tree, &of_shards, None).unwrap().entries().iter().any(|entry| entry.path == "c"));
        fs::remove_file(home.path().join("a")).unwrap();
        for manifest in [&of_files, &of_shards] {
            let missing = VerifyError::MissingFile { path: "a".into() };
            assert_eq!(cause(VerifiedTree::lazy(open(), manifest, None)), missing);
        }
    }

    #[test]
    fn what_authenticates_itself_is_hashed_once() {
        struct Sealed(SliceAt<Vec<u8>>, Arc<AtomicU64>);
        impl ReadAt for Sealed {
            fn size(&self) -> u64 {
                self.0.size()
            }
            fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
                self.1.fetch_add(buf.len() as u64, Ordering::SeqCst);
                self.0.read_at(offset, buf)
            }
            fn name(&self) -> &str {
                "sealed"
            }
            fn is_authenticated(&self) -> bool {
                true
            }
        }
        let (bytes, read) = (noise(3 * GROUP), Arc::new(AtomicU64::new(0)));
        let sealed = |bytes: &[u8]| -> Box<dyn Tree> {
            let source = Sealed(SliceAt::new(bytes.to_vec()), Arc::clone(&read));
            Box::new(SingleFile::new("weights", Arc::new(source)))
        };
        let manifest = Manifest::of_tree(&*sealed(&bytes), Hashing::default(), &Scope::default(), &()).unwrap();
        read.store(0, Ordering::SeqCst);
        let verified = VerifiedTree::eager(sealed(&bytes), &manifest, &()).unwrap();
        verified.open("weights").unwrap().read_at(5, &mut [0; 7]).unwrap();
        assert_eq!(read.load(Ordering::SeqCst), bytes.len() as u64 + 7);
        assert_eq!(cause(VerifiedTree::eager(sealed(&noise(3 * GROUP)[1..]), &manifest, &())), mismatch("weights"));
    }
}
