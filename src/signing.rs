//! Signing and verifying: OpenSSF Model Signing (OMS) v1.0, interoperable with its reference tool and stricter.
//!
//! A [`Manifest`] lists every file of a model with its SHA-256; a [`Bundle`] is that list, signed; a [`Policy`] says
//! whose signature is required, and verifies that a model is exactly what was signed: no file changed, missing or
//! added. The result is [`Verified`]. What is ours is in `spec/signing.md`.
//!
//! ```
//! use weightmark::keys::{Algorithm, SigningKey};
//! use weightmark::signing::{Manifest, Policy};
//!
//! # let model = tempfile::tempdir()?;
//! # let model = model.path();
//! # std::fs::write(model.join("config.json"), "{}")?;
//! let key = SigningKey::generate(Algorithm::EcdsaP256)?;
//! key.sign(&Manifest::of(model)?)?.write(model.join("model.sig"))?;
//!
//! let verified = Policy::require(key.verifying_key()).verify(model)?;
//! assert_eq!(verified.files(), 1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod bundle;
#[cfg_attr(not(test), expect(dead_code, reason = "no policy takes a certificate authority yet"))]
mod certificate;
mod digest;
mod groups;
#[cfg(feature = "sigstore")]
mod keyless;
mod manifest;
mod outboard;
mod policy;
mod ranges;
mod statement;
mod tree;

pub use bundle::Bundle;
pub use certificate::{CertificateAuthority, CertificateChain, Certified};
pub use digest::HashType;
#[cfg(feature = "sigstore")]
pub use keyless::{Keyless, KeylessSigner};
pub use manifest::{Hashing, Manifest, Resource};
pub use outboard::Outboard;
pub use policy::{Policy, Verified};
pub use tree::VerifiedTree;

pub use crate::format::{SIGNATURE_FILE, signature_path};

use crate::error::Result;
use crate::keys::{Signer, SigningKey};

/// Signs a manifest: an in-toto statement in a DSSE envelope in a sigstore bundle, as OMS describes. The signature is
/// verified under the signer's key before it is returned.
pub fn sign(manifest: &Manifest, signer: &dyn Signer) -> Result<Bundle> {
    Bundle::seal(signer, &statement::to_json(manifest))
}

impl SigningKey {
    /// Short for [`signing::sign`](sign) with this key.
    pub fn sign(&self, manifest: &Manifest) -> Result<Bundle> {
        sign(manifest, self)
    }
}
