//! What was verified here before: no older version of a model is taken for the newest.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};
use serde::{Deserialize, Serialize};

use super::release::Release;
use crate::crypto;
use crate::error::{Cause, Error, Result, VerifyError};
use crate::io::atomic::{Access, AtomicFile};
use crate::io::{FileAt, ReadAtExt};
use crate::json::{self, Object, UniqueMap};

const SCHEMA: &str = "weightmark/high-water/1";
/// About 100,000 models.
const MAX_SIZE: u64 = 16 << 20;

/// The file in which the highest version of each model is kept, with the digest that it had.
#[derive(Clone, Debug)]
pub(super) struct HighWater(PathBuf);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    schema: String,
    models: UniqueMap<Object<Mark>>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Mark {
    version: u64,
    root: String,
}

impl HighWater {
    pub(super) fn at(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// Fails if a newer version than this was recorded, or another of the same number.
    pub(super) fn check(&self, release: &Release) -> Result<()> {
        self.read().and_then(|marks| self.compare(&marks, release))
    }

    /// The file itself, where the path is a link to it: whoever comes by another path finds the same.
    fn place(&self) -> PathBuf {
        self.0.canonicalize().unwrap_or_else(|_| self.0.clone())
    }

    /// Checks again, and records this version. Nobody else changes the file meanwhile, and it is whole at any time.
    pub(super) fn raise(&self, release: &Release) -> Result<()> {
        let _lock = self.lock()?;
        let mut marks = self.read()?;
        self.compare(&marks, release)?;
        let mark = Mark { version: release.version(), root: crypto::hex(release.root_digest()) };
        if marks.get(release.name()).is_some_and(|known| known.version == mark.version) {
            return Ok(());
        }
        marks.insert(release.name().to_owned(), mark);
        let text = serde_json::json!({"schema": SCHEMA, "models": marks}).to_string();
        let place = self.place();
        match File::open(&place) {
            Ok(old) => {
                let file = AtomicFile::replace(&place, &old)?;
                file.write_at(0, text.as_bytes())?;
                file.commit()
            }
            Err(_) => AtomicFile::write(&place, Access::Shared, text.as_bytes()),
        }
    }

    fn compare(&self, marks: &BTreeMap<String, Mark>, release: &Release) -> Result<()> {
        let Some(seen) = marks.get(release.name()) else { return Ok(()) };
        let is_same = seen.root == crypto::hex(release.root_digest());
        if release.version() > seen.version || release.version() == seen.version && is_same {
            return Ok(());
        }
        let (name, found) = (release.name().to_owned(), release.version());
        Err(VerifyError::Rollback { name, found, seen: seen.version }.on(self.0.display().to_string()))
    }

    fn read(&self) -> Result<BTreeMap<String, Mark>> {
        let file = match FileAt::open(&self.0) {
            Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                return Ok(BTreeMap::new());
            }
            file => file?,
        };
        let bad = |problem: &str| {
            let problem = std::io::Error::new(std::io::ErrorKind::InvalidData, problem.to_owned());
            Error::io("read the versions seen from", &self.0, problem)
        };
        let State { schema, models: UniqueMap(models) } =
            json::parse(&file.read_all(MAX_SIZE)?).map_err(|problem| bad(&problem))?;
        if schema != SCHEMA {
            return Err(bad("unknown schema"));
        }
        Ok(models.into_iter().map(|(name, Object(mark))| (name, mark)).collect())
    }

    /// A lock beside the file, since the file itself is replaced. Waits for whoever holds it.
    fn lock(&self) -> Result<File> {
        let mut name = self.place().into_os_string();
        name.push(".lock");
        let path = Path::new(&name);
        let flags = OFlags::CREATE | OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let file = open(path, flags, Mode::from_raw_mode(0o666)).map_err(|e| Error::io("open", path, e))?;
        let file = File::from(file);
        flock(&file, FlockOperation::LockExclusive).map_err(|e| Error::io("lock", path, e))?;
        Ok(file)
    }
}
