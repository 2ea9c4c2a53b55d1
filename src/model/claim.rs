//! Claims of ownership: a record of the mark, signed by its owner before release, and judged in a dispute.

use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::crypto;
use crate::error::{Cause, Error, Result, VerifyError, WatermarkError};
use crate::io::{FileAt, Progress, ReadAt, ReadAtExt, Tree};
use crate::keys::{Signer, VerifyingKey};
use crate::signing::Bundle;
use crate::watermark::{Claimed, Record};

const STATEMENT: &str = "https://in-toto.io/Statement/v1";
const PREDICATE: &str = "https://weightmark/claim/v1";
const SUBJECT: &str = "original";
/// About 200,000 carriers.
const MAX_CLAIM: u64 = 64 << 20;

/// A claim of ownership: a [`Record`] as an in-toto statement, signed by the owner's organisation. Holds no secret.
///
/// ```no_run
/// use weightmark::keys::{OwnerKey, SigningKey, VerifyingKey};
/// use weightmark::model::Claim;
/// use weightmark::watermark::{Case, Opening, Record};
///
/// // before release
/// let owner = OwnerKey::load("owner.key")?;
/// let record = Record::new(&owner, "model/", None, "", &())?;
/// Claim::sign(&record, &SigningKey::load("release.pem")?)?.write("claim.json")?;
///
/// // in a dispute
/// let claim = Claim::read("claim.json")?;
/// Opening::whole(claim.claimed(), &owner, "model/", &())?.write("opening.json")?;
///
/// // the judge
/// let claimed = Claim::read("claim.json")?.verify(&VerifyingKey::load("release.pem.pub")?)?;
/// let case = Case::new(claimed, Opening::read("opening.json")?, "model/", None, &())?;
/// let verdict = case.examine(&*weightmark::io::tree::open("suspect.gguf")?, &[], &())?;
/// println!("p < 10^{:.0}", verdict.log10_p());
/// # Ok::<(), weightmark::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Claim {
    bundle: Bundle,
    claimed: Claimed,
}

impl Claim {
    /// Signs a record.
    pub fn sign(record: &Record, signer: &dyn Signer) -> Result<Self> {
        let payload = payload(record).map_err(|cause| cause.on("claim"))?;
        Self::from_bundle(Bundle::seal(signer, None, &payload)?, "claim")
    }

    /// Reads a claim.
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        let source = FileAt::open(path)?;
        let bytes = source.read_all(MAX_CLAIM)?;
        Self::from_bundle(Bundle::parse(&bytes).map_err(|cause| cause.on(source.name()))?, source.name())
    }

    /// Writes the claim to a new file.
    pub fn write(&self, path: impl AsRef<Path>) -> Result<()> {
        self.bundle.write(path)
    }

    /// SHA-256 of the file, in hexadecimal: what to have timestamped, or to put into a log, before release.
    pub fn digest(&self) -> String {
        crypto::hex(&self.claimed.digest)
    }

    /// What the claim says, for its owner: whose signature it bears was not looked at.
    pub fn claimed(&self) -> &Claimed {
        &self.claimed
    }

    /// What the claim says, if it was signed with `key`.
    pub fn verify(self, key: &VerifyingKey) -> Result<Claimed> {
        match self.bundle.is_signed_by(key) {
            true => Ok(self.claimed),
            false => Err(VerifyError::BadSignature.on(format!("claim of {}", self.claimed.record.owner().name()))),
        }
    }

    fn from_bundle(bundle: Bundle, name: &str) -> Result<Self> {
        let malformed = |problem: String| WatermarkError::MalformedClaim(problem).on(name);
        let statement: Statement = serde_json::from_slice(bundle.payload()).map_err(|e| malformed(e.to_string()))?;
        let record = statement.predicate;
        // a record has one form: no other spelling, no other field, no other type or subject
        if payload(&record).map_err(|cause| cause.on(name))? != bundle.payload() {
            return Err(malformed("not the statement of a claim".into()));
        }
        let digest = crypto::sha256(&[bundle.to_json().as_bytes()]);
        Ok(Self { bundle, claimed: Claimed { record, digest } })
    }
}

/// Digest of a model, in hexadecimal: of a lone file its SHA-256, of a directory the SHA-256 of what `sha256sum` prints of
/// its files in the order of their paths.
pub fn digest(tree: &dyn Tree, progress: &dyn Progress) -> Result<String> {
    let mut list = String::new();
    progress.begin("digest", tree.total_size());
    for entry in tree.entries() {
        let digest = crypto::hex(&sha256_of(&*tree.open(&entry.path)?, progress)?);
        if tree.is_single_file() {
            return Ok(digest);
        }
        list += &format!("{digest}  {}\n", entry.path);
    }
    Ok(crypto::hex(&crypto::sha256(&[list.as_bytes()])))
}

fn sha256_of(source: &dyn ReadAt, progress: &dyn Progress) -> Result<[u8; 32]> {
    const PIECE: u64 = 1 << 20;
    let mut hash = Sha256::new();
    let mut at = 0;
    while at < source.size() {
        let end = source.size().min(at + PIECE);
        hash.update(source.read_span(at..end)?);
        progress.advance(end - at);
        at = end;
        if progress.is_cancelled() {
            return Err(Error::Cancelled);
        }
    }
    Ok(hash.finalize().into())
}

fn payload(record: &Record) -> Result<Vec<u8>, WatermarkError> {
    let statement = Statement {
        kind: STATEMENT.to_owned(),
        subject: [Subject { name: SUBJECT.to_owned(), digest: Sha256Digest { sha256: record.root() } }],
        predicate_type: PREDICATE.to_owned(),
        predicate: record.clone(),
    };
    serde_json::to_vec(&statement).map_err(|e| WatermarkError::MalformedClaim(e.to_string()))
}

#[derive(Deserialize, Serialize)]
struct Statement {
    #[serde(rename = "_type")]
    kind: String,
    subject: [Subject; 1],
    #[serde(rename = "predicateType")]
    predicate_type: String,
    predicate: Record,
}

#[derive(Deserialize, Serialize)]
struct Subject {
    name: String,
    digest: Sha256Digest,
}

#[derive(Deserialize, Serialize)]
struct Sha256Digest {
    sha256: String,
}
