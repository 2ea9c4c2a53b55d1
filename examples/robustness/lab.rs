//! The model under attack, its owner, and the files of both.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use weightmark::keys::OwnerKey;
use weightmark::watermark::{Detector, Embedded, Evidence, Watermark};

use crate::model::{self, Weights};
use crate::symmetry::Anatomy;
use crate::{Options, Result, source};

// keys of nobody, so that every run prints the same table
const OWNER: &str = "wmowner1denu80tnwwsuaz4c4gf52gy3c3m7z3kraajteavrpl9wc0pyk275zcmdv5sycarypv6x4l";
const THIEF: &str = "wmowner1fgmc9hynn645tv5d7enqkd4ma6w7xmt4ch03g025fxqj0qd93nl9xmmdv43x7ereypzkcum9vhhapn";

/// What is written into the weights with `--payload`.
const PAYLOAD: u64 = 0x0123_4567_89ab_cdef;
/// Copies given out in collusions.
pub(crate) const COPIES: usize = 16;
/// Labels on the list of copies, leaked or not.
const LABELS: usize = 100;

/// Everything that attacks and detection work on.
pub(crate) struct Lab {
    /// The unmarked weights.
    pub(crate) original: Weights,
    /// Those of the copy that leaks, [`label(0)`](label).
    pub(crate) marked: Weights,
    /// What marking did.
    pub(crate) embedded: Embedded,
    /// The file or directory the original was made from.
    pub(crate) model: PathBuf,
    /// What is written into the weights in place of the mark of a copy, if that is asked for.
    pub(crate) payload: Option<u64>,
    python: Option<PathBuf>,
    owner: OwnerKey,
    thief: OwnerKey,
    home: PathBuf,
}

/// The label of a copy.
pub(crate) fn label(copy: usize) -> String {
    format!("licensee-{copy:04}")
}

impl Lab {
    /// Reads and marks the model.
    pub(crate) fn new(options: &Options, home: &Path) -> Result<Self> {
        let (owner, thief) = (OwnerKey::parse(OWNER)?, OwnerKey::parse(THIEF)?);
        let (plain, marked) = (home.join("original.safetensors"), home.join("copy-0.safetensors"));
        model::save(&source::read(&options.model)?, &plain)?;
        let payload = options.payload.then_some(PAYLOAD);
        let watermark = Watermark::new(&owner);
        let watermark = match payload {
            Some(payload) => watermark.payload(payload),
            None => watermark.copy(label(0)),
        };
        let embedded = watermark.embed(&plain, &marked)?;
        Ok(Self {
            original: model::load(&plain)?,
            marked: model::load(&marked)?,
            embedded,
            model: options.model.clone(),
            payload,
            python: options.python.clone(),
            owner,
            thief,
            home: home.to_owned(),
        })
    }

    /// What kind of transformer it is, if it is one.
    pub(crate) fn anatomy(&self) -> Option<Anatomy> {
        let (heads, shared) = source::heads(&self.model)?;
        Anatomy::of(&self.marked, heads, shared)
    }

    /// A file of the laboratory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.home.join(name)
    }

    /// The file of the unmarked weights.
    pub(crate) fn plain(&self) -> PathBuf {
        self.path("original.safetensors")
    }

    /// The file of a copy, marked when it is first asked for.
    pub(crate) fn copy(&self, number: usize) -> Result<PathBuf> {
        let path = self.path(&format!("copy-{number}.safetensors"));
        if !path.exists() {
            Watermark::new(&self.owner).copy(label(number)).embed(self.plain(), &path)?;
        }
        Ok(path)
    }

    /// The marked file, marked once more by somebody else, `times` as strongly.
    pub(crate) fn overwritten(&self, times: f64) -> Result<Weights> {
        let path = self.path("overwritten.safetensors");
        let strength = (self.embedded.strength * times).min(0.1);
        Watermark::new(&self.thief).copy("loot").strength(strength).embed(self.copy(0)?, &path)?;
        let weights = model::load(&path);
        std::fs::remove_file(&path)?;
        weights
    }

    /// Looks for the owner's marks in a suspect, in every way.
    pub(crate) fn examine(&self, suspect: &Path, partner: Option<&Path>) -> Result<Evidence> {
        let mut detector = Detector::new(&self.owner, self.plain()).exhaustive();
        if self.payload.is_none() {
            detector = detector.copies((0..LABELS).map(label));
        }
        if let Some(partner) = partner {
            detector = detector.partner(partner);
        }
        Ok(detector.examine(suspect)?)
    }

    /// Runs a script of this repository, and gives what it printed; `None` where there is no Python, or it lacks a
    /// package that the script needs (status 3).
    pub(crate) fn script<A: AsRef<OsStr>>(
        &self,
        name: &str,
        arguments: impl IntoIterator<Item = A>,
    ) -> Result<Option<String>> {
        let Some(python) = &self.python else { return Ok(None) };
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
        let output = Command::new(python).arg(script).args(arguments).output()?;
        match output.status.code() {
            Some(0) => Ok(Some(String::from_utf8(output.stdout)?.trim().to_owned())),
            Some(3) => Ok(None),
            _ => Err(format!("{name}: {}", String::from_utf8_lossy(&output.stderr).trim()).into()),
        }
    }
}
