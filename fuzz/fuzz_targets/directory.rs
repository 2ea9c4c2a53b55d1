//! The `weightmark.keys` of an encrypted directory: whatever it says, what opens are files it lists, in order, each once.
//! `inspect` never fails on one that opens.
#![no_main]

use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use weightmark::encryption::{DecryptedTree, KEYS_FILE, inspect};
use weightmark::io::{Entry, ReadAt, SliceAt, Tree};
use weightmark::keys::{Identity, SymmetricKey};

/// The keys of the vectors, of which the seeds are some.
static IDENTITIES: LazyLock<Vec<SymmetricKey>> = LazyLock::new(|| {
    let texts = [
        "wmkey1ufw9l447u3jm7yv6u747nexkmqventpklddcqvp8lvru5fgdkltqtmng6k",
        "wmkey1y63dn8csd8txdf4pu55zyppxq88pgt83yjxdq3g8hu8r3v2e3arqz6yu3w",
        "wmkey1dd2m0une2spqxh2tm3zxt7hq30sleele0nq0ycpsn2528sleg2psqfrtfn",
    ];
    texts.iter().map(|text| SymmetricKey::parse(text).expect("a constant")).collect()
});

/// A directory of the keys file, and of every file that it lists, all of them empty.
struct Directory {
    keys: Vec<u8>,
    entries: Vec<Entry>,
}

impl Tree for Directory {
    fn entries(&self) -> &[Entry] {
        &self.entries
    }

    fn open(&self, path: &str) -> weightmark::Result<Arc<dyn ReadAt>> {
        Ok(Arc::new(SliceAt::new(if path == KEYS_FILE { self.keys.clone() } else { Vec::new() })))
    }

    fn name(&self) -> &str {
        "directory"
    }
}

fuzz_target!(|keys: &[u8]| {
    let inspection = inspect(&SliceAt::named(keys, KEYS_FILE));
    let mut entries = vec![Entry::new(KEYS_FILE, keys.len() as u64)];
    if let Ok(Some(seen)) = &inspection {
        entries.extend(seen.files().map(|(path, _)| Entry::new(format!("{path}.wmenc"), 0)));
        entries.sort_by(|a, b| a.path.cmp(&b.path));
    }
    let identities: Vec<&dyn Identity> = IDENTITIES.iter().map(|key| key as &dyn Identity).collect();
    let directory = Directory { keys: keys.to_vec(), entries };
    let Ok(tree) = DecryptedTree::open(Box::new(directory), &identities) else { return };
    let seen = inspection.expect("it opens").expect("it opens");
    assert_eq!(seen.context, tree.context());
    assert_eq!(seen.files().count(), tree.entries().len() + tree.closed().len());
    assert!(tree.entries().is_sorted_by(|a, b| a.path < b.path));
    for entry in tree.entries() {
        assert!(tree.open(&entry.path).is_err(), "an empty file opens");
    }
});
