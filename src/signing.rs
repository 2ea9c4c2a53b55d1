//! Signing and verifying: OpenSSF Model Signing (OMS) v1.0, interoperable with its reference tool and stricter.
//!
//! A [`Manifest`] lists every file of a model with its digest; a [`Bundle`] is that list, signed; a [`Policy`] says
//! whose signature is required, and verifies that a model is exactly what was signed: no file changed, missing or
//! added. The result is [`Verified`], and, for whoever reads the model, a [`VerifiedTree`] that hands out nothing else. A
//! [`Release`] says what OMS has no place for. What is ours is in `spec/signing.md`.
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

mod authority;
mod bundle;
mod certificate;
pub mod components;
mod diff;
mod digest;
mod groups;
mod high_water;
#[cfg(feature = "sigstore")]
mod keyless;
mod manifest;
mod oms;
mod outboard;
mod policy;
mod publisher;
mod ranges;
pub mod release;
mod rule;
mod signatures;
mod statement;
mod tree;
mod verified;

pub use authority::{Authority, Signatory};
pub use bundle::Bundle;
pub use certificate::{CertificateAuthority, CertificateChain, Certified};
pub use diff::Difference;
pub use digest::HashType;
#[cfg(feature = "sigstore")]
pub use keyless::{Keyless, KeylessSigner};
pub use manifest::{Hashing, Manifest, Resource, Scope};
pub use outboard::Outboard;
pub use policy::Policy;
pub(crate) use publisher::path_inside;
pub use publisher::{Publisher, Signed};
pub use release::Release;
pub use rule::Rule;
pub use signatures::Signatures;
pub use tree::VerifiedTree;
pub use verified::Verified;

pub use crate::format::{OUTBOARD_FILE, RELEASE_FILE, SIGNATURE_FILE, outboard_path, release_path, signature_path};

use crate::error::Result;
use crate::keys::{Signer, SigningKey};

/// As [`sign`], with the certificates that lead from the signer to an authority.
pub fn sign_with_certificate(manifest: &Manifest, signer: &dyn Signer, chain: &CertificateChain) -> Result<Bundle> {
    Bundle::seal(signer, Some(chain), &oms::to_json(manifest))
}

/// Signs a manifest: an in-toto statement in a DSSE envelope in a sigstore bundle, as OMS describes. The signature is
/// verified under the signer's key before it is returned.
pub fn sign(manifest: &Manifest, signer: &dyn Signer) -> Result<Bundle> {
    Bundle::seal(signer, None, &oms::to_json(manifest))
}

impl SigningKey {
    /// Short for [`signing::sign`](sign) with this key.
    pub fn sign(&self, manifest: &Manifest) -> Result<Bundle> {
        sign(manifest, self)
    }
}
