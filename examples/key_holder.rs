//! A key holder of your own: input keys wrapped by a service that never shows its key.
//!
//! `cargo run --example key_holder`. The service here is a thread of this process; one of yours may be a cloud's key
//! management, Vault's transit engine, or a token in a drawer. What matters is the same: it is slow, it is elsewhere, and
//! it may be down.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine};
use weightmark::encryption::{Encryptor, Reader};
use weightmark::error::{EncryptionError, Error, KeyError};
use weightmark::io::{ReadAtExt, SliceAt};
use weightmark::keys::{Identity, InputKey, Recipient, Stanza, SymmetricKey, XWingIdentity};

/// The type of its stanzas: named for a domain of ours, so that nobody else's is taken for it.
const KIND: &str = "acme.example/vault";

/// What the service is asked: to wrap a key (32 bytes), or to unwrap one.
enum Ask {
    Wrap([u8; 32]),
    Unwrap(Stanza),
}

type Answer = Result<Vec<u8>, String>;
type Question = (Ask, Sender<Answer>);

/// Our end of the connection. Cheap to clone, as clients of services are.
#[derive(Clone)]
struct Vault {
    name: String,
    service: Sender<Question>,
}

impl Vault {
    fn ask(&self, ask: Ask) -> weightmark::Result<Vec<u8>> {
        let unavailable = |why: String| Error::Key { name: self.name.clone(), cause: KeyError::Unavailable(why) };
        let (to_us, answer) = channel();
        self.service.send((ask, to_us)).map_err(|e| unavailable(e.to_string()))?;
        let answer = answer.recv_timeout(Duration::from_secs(5)).map_err(|e| unavailable(e.to_string()))?;
        answer.map_err(unavailable)
    }

    fn tampered(&self) -> Error {
        Error::Encryption { name: self.name.clone(), cause: EncryptionError::EnvelopeTampered }
    }
}

impl Recipient for Vault {
    fn wrap(&self, key: &InputKey) -> weightmark::Result<Stanza> {
        let wrapped = self.ask(Ask::Wrap(*key.expose()))?;
        Ok(Stanza::new(KIND, self.name.clone(), [("wrapped", BASE64_STANDARD.encode(wrapped))]))
    }
}

impl Identity for Vault {
    fn unwrap(&self, stanza: &Stanza) -> Option<weightmark::Result<InputKey>> {
        // told from type and id alone: the service is asked for what is ours, and for nothing else
        (stanza.kind == KIND && stanza.id == self.name).then(|| {
            let bytes = self.ask(Ask::Unwrap(stanza.clone()))?;
            InputKey::from_bytes(bytes.as_array().ok_or_else(|| self.tampered())?)
        })
    }
}

/// The service: whoever may ask it can open, and nobody ever holds its key.
fn serve(questions: &Receiver<Question>, key: &SymmetricKey, answers: usize) -> weightmark::Result<()> {
    for (ask, to_them) in questions.iter().take(answers) {
        let answer = match ask {
            Ask::Wrap(secret) => {
                let stanza = key.wrap(&InputKey::from_bytes(&secret)?)?;
                Ok(stanza.arguments["body"].clone().into_bytes())
            }
            Ask::Unwrap(stanza) => {
                let wrapped = BASE64_STANDARD.decode(&stanza.arguments["wrapped"]).unwrap_or_default();
                let body = String::from_utf8(wrapped).unwrap_or_default();
                match key.unwrap(&Stanza::new("key", key.id(), [("body", body)])) {
                    Some(Ok(opened)) => Ok(opened.expose().to_vec()),
                    _ => Err("permission denied".to_owned()),
                }
            }
        };
        let _ = to_them.send(answer); // whoever asked may have given up
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (service, questions) = channel();
    let vault = Vault { name: "kv/llama-1b".into(), service };
    let key = SymmetricKey::generate()?;
    let server = std::thread::spawn(move || serve(&questions, &key, 2)); // two answers, then it goes down

    let backup = XWingIdentity::generate()?;
    let recipients: [Box<dyn Recipient>; 2] = [Box::new(vault.clone()), Box::new(backup.recipient())];
    let sealed = Encryptor::to(recipients).context("acme/llama-1b@3").encrypt_bytes("model.bin", b"weights")?;

    let reader = Reader::open(SliceAt::new(&sealed), &[&vault])?;
    println!("opened by the service: {:?}", String::from_utf8(reader.read_all(100)?)?);
    server.join().map_err(|_| "the service panicked")??;

    // the service is down: its error comes through, unless somebody else opens
    match Reader::open(SliceAt::new(&sealed), &[&vault]) {
        Err(Error::Key { cause: KeyError::Unavailable(why), .. }) => println!("the service is down: {why}"),
        _ => return Err("a service that is down must say so".into()),
    }
    let reader = Reader::open(SliceAt::new(&sealed), &[&vault, &backup])?;
    println!("opened by the backup key: {:?}", String::from_utf8(reader.read_all(100)?)?);
    Ok(())
}
