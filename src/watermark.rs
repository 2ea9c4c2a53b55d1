//! Watermarks in the weights themselves: every copy can be traced, and ownership of stolen weights proved.
//!
//! Half of the weights carry the *owner mark*, the same in every copy; the other half the *copy mark* of one
//! licensee, a word of a Tardos code, or a payload. Both change weights by about 0.2 % of their row's root mean square, and
//! codes of quantised weights by single steps, without data or training. [`Detector`] compares a suspect with the original
//! and gives an exact bound on the probability that weights without the mark would look like this: a p-value that holds for
//! any suspect, whatever was done to it. An owner publishes a [`Record`] as a claim before release, and a judge holds it
//! against suspects in a [`Case`], from what an [`Opening`] shows. The scheme is specified in `spec/watermark.md`.
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

mod attack;
mod blind;
mod carrier;
mod case;
mod choice;
mod cleaning;
mod collusion;
mod detect;
mod embed;
mod evidence;
mod fingerprint;
mod grid;
mod keystream;
mod lanes;
mod lattice;
mod merkle;
mod opening;
mod payload;
mod record;
mod residual;
mod score;
mod secrets;
mod stamp;
pub mod statistics;
mod store;
mod survive;
mod suspect;
mod terms;
mod weights;

pub use attack::{Attack, Step};
pub use case::{Case, Order, Verdict};
pub use choice::Skipped;
pub use detect::Detector;
pub use embed::{Embedded, Prediction, Watermark};
pub use evidence::{CopyEvidence, Evidence, Method, Reading};
pub use opening::{Draw, Opening};
pub use payload::PayloadEvidence;
pub use record::{Claimed, Record};
pub use survive::Survival;
