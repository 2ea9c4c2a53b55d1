//! Watermarks in the weights themselves: every copy can be traced, and ownership of stolen weights proved.
//!
//! Half of the weights carry the *owner mark*, the same in every copy; the other half the *copy mark* of one
//! licensee, a word of a Tardos code. Both change weights by about 0.2 % of their row's root mean square, without
//! data or training. [`Detector`] compares a suspect with the original and gives an exact bound on the probability
//! that weights without the mark would look like this: a p-value that holds for any suspect, whatever was done to
//! it. The scheme is specified in `spec/watermark.md`.
//!
//! ```no_run
//! use weightmark::keys::OwnerKey;
//! use weightmark::watermark::{Detector, Watermark};
//!
//! let owner = OwnerKey::load("owner.key")?;
//! Watermark::new(&owner).copy("licensee-0017").embed("model.safetensors", "licensee-0017.safetensors")?;
//!
//! let evidence = Detector::new(&owner, "model.safetensors").copies(["licensee-0017"]).examine("suspect.safetensors")?;
//! println!("p < 10^{:.0}, copy {:?}", evidence.log10_p(), evidence.copy());
//! # Ok::<(), weightmark::Error>(())
//! ```

mod carrier;
mod detect;
mod embed;
mod fingerprint;
mod keystream;
pub mod statistics;
mod suspect;
mod weights;

pub use detect::{CopyEvidence, Detector, Evidence};
pub use embed::{Embedded, Watermark};
