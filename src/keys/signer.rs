//! The joint for keys that are held elsewhere.

use super::VerifyingKey;
use crate::error::Result;

/// Someone who signs: a [`SigningKey`](super::SigningKey), or a key service or token of one's own.
///
/// `signing::sign` verifies what comes back before it hands it on.
///
/// ```
/// use std::sync::Mutex;
/// use std::sync::mpsc::{Receiver, Sender, channel};
///
/// use weightmark::error::{Error, KeyError, Result};
/// use weightmark::keys::{Algorithm, Signer, SigningKey, VerifyingKey};
/// use weightmark::signing::{self, Manifest, Policy};
///
/// /// A key that never leaves its machine, here another thread, which is asked for each signature.
/// struct Remote {
///     public: VerifyingKey,
///     line: Mutex<(Sender<Vec<u8>>, Receiver<Vec<u8>>)>,
/// }
///
/// impl Signer for Remote {
///     fn verifying_key(&self) -> VerifyingKey {
///         self.public.clone()
///     }
///
///     fn sign(&self, message: &[u8]) -> Result<Vec<u8>> {
///         let gone = || Error::Key { name: "remote".into(), cause: KeyError::Unavailable("it has hung up".into()) };
///         let line = self.line.lock().map_err(|_| gone())?;
///         line.0.send(message.to_vec()).map_err(|_| gone())?;
///         line.1.recv().map_err(|_| gone())
///     }
/// }
///
/// # let model = tempfile::tempdir()?;
/// # let model = model.path();
/// # std::fs::write(model.join("config.json"), "{}")?;
/// let key = SigningKey::generate(Algorithm::EcdsaP384)?;
/// let public = key.verifying_key();
/// let ((ask, asked), (answer, answers)) = (channel::<Vec<u8>>(), channel());
/// std::thread::spawn(move || asked.iter().try_for_each(|message| answer.send(key.sign_bytes(&message))));
///
/// let remote = Remote { public: public.clone(), line: Mutex::new((ask, answers)) };
/// signing::sign(&Manifest::of(model)?, &remote)?.write(model.join("model.sig"))?;
/// Policy::require(public).verify(model)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Signer: Send + Sync {
    /// The public half of the key that [`sign`](Self::sign) uses.
    fn verifying_key(&self) -> VerifyingKey;

    /// A signature over `message`, as the algorithm of the key has it: DER for ECDSA, 64 bytes for Ed25519. The message
    /// is hashed by the signer, with the hash that belongs to the algorithm.
    ///
    /// May be slow. Who cannot be reached, or refuses, is [`KeyError::Unavailable`](crate::error::KeyError::Unavailable).
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>>;
}
