//! Every verb and flag, once: help texts follow from here.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use weightmark::watermark::Attack;

/// Protects machine-learning models: encrypts weights at rest, signs and verifies artifacts, watermarks the weights
/// themselves.
#[derive(Parser)]
#[command(
    version,
    max_term_width = 100,
    after_help = "Exit status: 0 done, or yes; 1 no (tampered, badly signed, not detected); \
2 usage; 3 input, output or format; 4 a key is missing or does not fit."
)]
pub(crate) struct Cli {
    /// Print one JSON object on stdout instead of text
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Show no progress
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Mark a copy of a model, sign it, and encrypt it to its recipient
    Protect(Protect),
    /// Make a key: FILE, for your eyes only, and FILE.pub
    Keygen(Keygen),
    /// Encrypt a file or a model directory
    Encrypt(Encrypt),
    /// Decrypt a file or a model directory
    Decrypt(Decrypt),
    /// Change who may open an encrypted file or directory, in place and without touching its payload
    ///
    /// This does not revoke: whoever could open it before may have kept its key or its content. To shut them out of what
    /// you publish from now on, use `rekey`. Without any change it only ends one that was interrupted.
    Rewrap(Rewrap),
    /// Encrypt an encrypted file or directory anew, under a new key
    Rekey(Rekey),
    /// Run a command on a decrypted model that is in sealed memory only
    ///
    /// The model is decrypted into memory that nobody can change, and verified there; no plaintext touches a disk (other
    /// than swap). A lone file gets a path in /proc; a directory is mounted in the place of the encrypted one, for COMMAND
    /// alone; without root it then is in a user namespace, where it cannot become another user. COMMAND takes the place of
    /// this process.
    #[cfg(target_os = "linux")]
    Exec(Exec),
    /// Tell what a file or directory is: tensors, recipients, signature; no key needed
    Inspect(Inspect),
    /// Sign a model, as OpenSSF Model Signing does
    Sign(Sign),
    /// Verify that a model is exactly what was signed
    Verify(Verify),
    /// Tell what changed from one signed version of a model to another
    Diff(Diff),
    /// Mark the weights of a model
    Embed(Embed),
    /// Look for an owner's mark in a suspect
    Detect(Detect),
    /// Tell whether two models have a common origin, without any mark
    ///
    /// Hidden units are matched by their weights. Units of the same number in both models are evidence with an exact p-value
    /// if the models were initialised independently of each other; units that only agree are a heuristic, and say so.
    Lineage(Lineage),
    /// Claim ownership before release; open a claim in a dispute
    ///
    /// A claim commits to the original, to the owner's name and to all secrets of the mark, and holds none. Have the digest
    /// that is printed timestamped, or put it into a public log, before the first copy leaves the house.
    Claim(Claim),
    /// Judge a claim of ownership, from what its owner has opened
    Judge(Judge),
}

#[derive(Args)]
pub(crate) struct Keygen {
    /// What the key is for
    pub(crate) kind: KeyKind,
    /// Where to write the secret key
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: PathBuf,
    /// Name of the owner, in marks and claims (for an owner key)
    #[arg(long, value_name = "NAME", required_if_eq("kind", "owner"))]
    pub(crate) name: Option<String>,
    /// Algorithm of a signing key [default: p256]
    #[arg(long, value_name = "ALGORITHM")]
    pub(crate) algorithm: Option<SigningAlgorithm>,
    /// Make an identity with a short recipient, on Curve25519 alone; not safe from quantum computers
    #[arg(long)]
    pub(crate) x25519: bool,
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum KeyKind {
    /// Opens what is encrypted to its public half
    Identity,
    /// Signs models
    Signing,
    /// Marks weights, and proves it
    Owner,
    /// Encrypts and opens: 32 bytes that both sides share; no public half
    Symmetric,
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum SigningAlgorithm {
    /// ECDSA on P-256
    P256,
    /// ECDSA on P-384
    P384,
    /// ECDSA on P-521
    P521,
    /// Other OMS tools do not verify it
    Ed25519,
}

#[derive(Args)]
#[group(required = true, multiple = true)]
pub(crate) struct Recipients {
    /// Who may open it: a recipient (wmrecipient1…), or a file that holds one or a symmetric key
    #[arg(short, long = "recipient", value_name = "RECIPIENT|FILE")]
    pub(crate) recipients: Vec<String>,
    /// Who may open the files at PATH and beneath it, and nobody else; for directories
    #[arg(long = "group", value_name = "PATH=RECIPIENT|FILE", requires = "recipients")]
    pub(crate) groups: Vec<String>,
    /// Encrypt to the passphrase in this file instead
    #[arg(long, value_name = "FILE", conflicts_with_all = ["recipients", "groups", "passphrase"])]
    pub(crate) passphrase_file: Option<PathBuf>,
    /// Encrypt to a passphrase that is asked for instead
    #[arg(long, conflicts_with_all = ["recipients", "groups"])]
    pub(crate) passphrase: bool,
}

#[derive(Args)]
pub(crate) struct Encrypt {
    /// A file or directory, or - for stdin
    pub(crate) input: PathBuf,
    #[command(flatten)]
    pub(crate) recipients: Recipients,
    /// Bind it to a context, such as acme/llama-1b@3
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(crate) context: String,
    /// List names, types and shapes of the tensors where everybody can read them
    #[arg(long)]
    pub(crate) public_index: bool,
    /// What to call the file that comes from stdin
    #[arg(long, value_name = "NAME", default_value = "stdin")]
    pub(crate) name: String,
    /// The new encrypted file or directory, or - for stdout
    #[arg(short, long, value_name = "OUT")]
    pub(crate) output: PathBuf,
}

#[derive(Args)]
pub(crate) struct Opening {
    /// Identity file, or symmetric key, that opens it, if it is encrypted
    #[arg(short, long = "identity", value_name = "FILE")]
    pub(crate) identities: Vec<PathBuf>,
    /// Open it with the passphrase in this file
    #[arg(long, value_name = "FILE", conflicts_with = "passphrase")]
    pub(crate) passphrase_file: Option<PathBuf>,
    /// Open it with a passphrase that is asked for
    #[arg(long)]
    pub(crate) passphrase: bool,
    /// Refuse anything that is not encrypted under this context
    #[arg(long)]
    pub(crate) context: Option<String>,
    /// Accept a directory some of whose files are encrypted for others; what is said of those is not authenticated
    #[arg(long)]
    pub(crate) partial: bool,
}

#[derive(Args)]
pub(crate) struct Decrypt {
    /// An encrypted file or directory, or - for stdin
    pub(crate) input: PathBuf,
    #[command(flatten)]
    pub(crate) opening: Opening,
    /// The new plaintext file or directory, or - for stdout
    #[arg(short, long, value_name = "OUT")]
    pub(crate) output: PathBuf,
}

#[derive(Args)]
pub(crate) struct Rewrap {
    /// An encrypted file or directory, which is changed
    pub(crate) artifact: PathBuf,
    #[command(flatten)]
    pub(crate) opening: Opening,
    #[command(flatten)]
    pub(crate) change: Change,
    /// Change the group of files with this path [default: the main one]
    #[arg(long, value_name = "PATH", default_value = "", hide_default_value = true)]
    pub(crate) group: String,
}

#[derive(Args)]
pub(crate) struct Change {
    /// Let these recipients open it, and nobody else
    #[arg(short = 'r', long = "recipient", value_name = "RECIPIENT|FILE", conflicts_with_all = ["add", "remove"])]
    pub(crate) only: Vec<String>,
    /// Let this recipient open it too
    #[arg(long, value_name = "RECIPIENT|FILE")]
    pub(crate) add: Vec<String>,
    /// Take out the recipient of this id, as `inspect` shows it
    #[arg(long, value_name = "ID")]
    pub(crate) remove: Vec<String>,
}

#[derive(Args)]
pub(crate) struct Rekey {
    /// An encrypted file or directory
    pub(crate) input: PathBuf,
    #[command(flatten)]
    pub(crate) opening: Opening,
    /// Who may open the new one: a recipient (wmrecipient1…), or a file that holds one or a symmetric key
    #[arg(short, long = "recipient", value_name = "RECIPIENT|FILE", required = true)]
    pub(crate) recipients: Vec<String>,
    /// Who may open the files at PATH and beneath it, and nobody else; for directories
    #[arg(long = "group", value_name = "PATH=RECIPIENT|FILE")]
    pub(crate) groups: Vec<String>,
    /// Bind the new one to another context than the old one
    #[arg(long, value_name = "CONTEXT")]
    pub(crate) new_context: Option<String>,
    /// The new encrypted file or directory
    #[arg(short, long, value_name = "OUT")]
    pub(crate) output: PathBuf,
}

#[cfg(target_os = "linux")]
#[derive(Args)]
pub(crate) struct Exec {
    /// An encrypted file or directory
    pub(crate) input: PathBuf,
    #[command(flatten)]
    pub(crate) opening: Opening,
    #[command(flatten)]
    pub(crate) trust: Trust,
    /// Run on a signed model without verifying it
    #[arg(long, conflicts_with = "trust")]
    pub(crate) danger_accept_unsigned: bool,
    /// Let this file be there although it holds code, or what is not provably plain data
    #[arg(long, value_name = "PATH")]
    pub(crate) allow_code: Vec<String>,
    /// What to run; {} stands for the path of the decrypted model
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub(crate) command: Vec<String>,
}

#[derive(Args)]
pub(crate) struct Inspect {
    /// A file or directory
    pub(crate) input: PathBuf,
}

#[derive(Args)]
pub(crate) struct Sign {
    /// A model: a directory or one file
    pub(crate) model: PathBuf,
    /// Signing key (PEM: PKCS#8 or SEC1); the passphrase of an encrypted one is asked for
    #[arg(long, value_name = "PEM")]
    pub(crate) key: PathBuf,
    /// Decrypt the signing key with the passphrase in this file
    #[arg(long, value_name = "FILE")]
    pub(crate) key_passphrase_file: Option<PathBuf>,
    /// Certificate of the signing key (PEM), to go with the signature in the place of the key's id
    #[arg(long, value_name = "PEM")]
    pub(crate) certificate: Option<PathBuf>,
    /// Certificates between it and an authority (PEM)
    #[arg(long = "certificate-chain", value_name = "PEM", requires = "certificate")]
    pub(crate) certificate_chain: Vec<PathBuf>,
    /// Where to write the signature [default: MODEL/model.sig, or FILE.sig]
    #[arg(long, value_name = "PATH")]
    pub(crate) signature: Option<PathBuf>,
    /// Leave out this path of the model; the signature says so
    #[arg(long, value_name = "PATH")]
    pub(crate) ignore_paths: Vec<String>,
    /// Hash function; the reference tool verifies all of them
    #[arg(long, value_name = "NAME", default_value = "sha256", value_parser = ["sha256", "blake2b", "blake3"])]
    pub(crate) hash: String,
    /// Hash files in parts of so many bytes, each with a digest of its own
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) shard_size: Option<u64>,
    /// Write model.outboard (or FILE.outboard) too, by which a loader verifies just what it reads; hashes with blake3
    #[arg(long, conflicts_with_all = ["hash", "shard_size"])]
    pub(crate) outboard: bool,
    /// Sign this file although it holds code, or what is not provably plain data; the release says so
    #[arg(long, value_name = "PATH", requires = "release")]
    pub(crate) allow_code: Vec<String>,
    /// Release it too, as this name and version: what is code, chat template and tokenizer is signed by name
    #[arg(long, value_name = "NAME@VERSION")]
    pub(crate) release: Option<String>,
    /// Let the release be good until this time (2027-01-31T00:00:00Z) or for so long (90days)
    #[arg(long, value_name = "TIME", requires = "release")]
    pub(crate) expires: Option<String>,
    /// Name a model that this one was made from: base, fine-tuned, quantised, merged or converted, and where it lies
    #[arg(long = "parent", value_name = "RELATION=MODEL", requires_all = ["release", "parent_keys"])]
    pub(crate) parents: Vec<String>,
    /// Public key that must have signed the parents (PEM); any one of several
    #[arg(long = "parent-key", value_name = "PEM")]
    pub(crate) parent_keys: Vec<PathBuf>,
}

/// Whose signature counts, and for what.
#[derive(Args)]
#[group(id = "trust", multiple = true)]
pub(crate) struct Trust {
    /// Public key that must have signed (PEM); any one of several
    #[arg(long = "key", value_name = "PEM")]
    pub(crate) keys: Vec<PathBuf>,
    /// Trusted certificates: one of them must have issued the signer's, or be it (PEM)
    #[arg(long = "certificate-chain", value_name = "PEM")]
    pub(crate) authorities: Vec<PathBuf>,
    /// Trusted root of sigstore, by which to verify keyless signatures offline: a trusted_root.json or a client trust config
    #[cfg(feature = "sigstore")]
    #[arg(long, value_name = "JSON", requires_all = ["issued_to", "oidc_issuer"])]
    pub(crate) trusted_root: Option<PathBuf>,
    /// Who must have known the identity of a keyless signer: the URL of an OpenID Connect provider
    #[cfg(feature = "sigstore")]
    #[arg(long = "certificate-oidc-issuer", value_name = "URL", requires = "trusted_root")]
    pub(crate) oidc_issuer: Option<String>,
    /// To whom the certificate must be issued: an e-mail address, URI or host name; any one of several
    #[arg(long = "certificate-identity", value_name = "NAME", conflicts_with = "policy")]
    pub(crate) issued_to: Vec<String>,
    /// Who may sign which models, from a file
    #[arg(long, value_name = "TOML", conflicts_with_all = ["keys", "authorities"])]
    pub(crate) policy: Option<PathBuf>,
    /// Refuse a model that was signed under another name
    #[arg(long, value_name = "NAME", requires = "trust")]
    pub(crate) name: Option<String>,
    /// Refuse a model without a release, or of a lower version
    #[arg(long, value_name = "N")]
    pub(crate) minimum_version: Option<u64>,
    /// Keep the versions seen in this file, and refuse one that is lower
    #[arg(long, value_name = "FILE")]
    pub(crate) high_water: Option<PathBuf>,
    /// Take no signature by the key of this id
    #[arg(long = "revoked", value_name = "ID", value_parser = key_id)]
    pub(crate) revoked: Vec<String>,
}

fn key_id(text: &str) -> Result<String, &'static str> {
    let is_key_id = weightmark::signing::Policy::is_key_id(text);
    if is_key_id { Ok(text.to_owned()) } else { Err("the id of a key has 64 hexadecimal digits in lower case") }
}

#[derive(Args)]
pub(crate) struct Verify {
    /// A model: a directory or one file
    pub(crate) model: PathBuf,
    #[command(flatten)]
    pub(crate) trust: Trust,
    /// Signature; one of several [default: MODEL/model.sig and model.*.sig, or FILE.sig and FILE.release.sig]
    #[arg(long = "signature", value_name = "PATH")]
    pub(crate) signatures: Vec<PathBuf>,
    /// Refuse it unless it was made from this model, signed under the same policy
    #[arg(long = "parent", value_name = "MODEL")]
    pub(crate) parents: Vec<PathBuf>,
    /// Tolerate files that were not signed
    #[arg(long)]
    pub(crate) ignore_unsigned_files: bool,
    /// Tolerate this path of the model although it was not signed
    #[arg(long, value_name = "PATH")]
    pub(crate) ignore_paths: Vec<String>,
    #[command(flatten)]
    pub(crate) opening: Opening,
}

#[derive(Args)]
pub(crate) struct Diff {
    /// A signed model, or one signature file
    pub(crate) from: PathBuf,
    /// Another
    pub(crate) to: PathBuf,
    #[command(flatten)]
    pub(crate) trust: Trust,
}

#[derive(Args)]
pub(crate) struct Marking {
    /// Relative distortion [default: from the number of weights, 0.0005 to 0.01]
    #[arg(long, value_name = "X")]
    pub(crate) strength: Option<f64>,
    /// Public random value to bind the mark to, such as a round of drand
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(crate) beacon: String,
}

fn payload(text: &str) -> Result<u64, &'static str> {
    u64::from_str_radix(text, 16).map_err(|_| "a payload has up to 16 hexadecimal digits")
}

#[derive(Args)]
pub(crate) struct Embed {
    /// The original model: a directory or one file
    pub(crate) original: PathBuf,
    /// The owner's secret key
    #[arg(long, value_name = "FILE")]
    pub(crate) owner_key: PathBuf,
    /// Mark this copy with a label of its own
    #[arg(long, value_name = "LABEL")]
    pub(crate) copy: Option<String>,
    /// Write a number into the weights, up to 16 hexadecimal digits, in place of the mark of a copy
    #[arg(long, value_name = "HEX", value_parser = payload, conflicts_with = "copy")]
    pub(crate) payload: Option<u64>,
    #[command(flatten)]
    pub(crate) marking: Marking,
    /// Simulate attacks on the marked weights and look for the mark in what they leave: a list such as
    /// q4_0,prune50,prune50+int4, of f16, bf16, f8_e4m3, f8_e5m2, q4_0, q4_1, q5_0, q5_1, q8_0, int2 to int8 (of groups of
    /// 128 weights, int8 of rows), int4_g32 (of groups of 32), prune50 and noise10 (percent), and several joined by +
    #[arg(long, value_name = "ATTACKS", value_delimiter = ',')]
    pub(crate) survive: Vec<Attack>,
    /// The new marked model
    #[arg(short, long, value_name = "MARKED")]
    pub(crate) output: PathBuf,
}

#[derive(Args)]
pub(crate) struct Detect {
    /// The model in question: a directory or one file
    pub(crate) suspect: PathBuf,
    /// The original, unmarked model
    #[arg(long, value_name = "ORIGINAL")]
    pub(crate) original: PathBuf,
    /// The owner's secret key
    #[arg(long, value_name = "FILE")]
    pub(crate) owner_key: PathBuf,
    /// File with the labels of all copies given out, one a line
    #[arg(long, value_name = "FILE")]
    pub(crate) copies: Option<PathBuf>,
    /// A model that the suspect may have been merged with
    #[arg(long, value_name = "MODEL")]
    pub(crate) partner: Option<PathBuf>,
    /// Try every method, though the first may have settled whose model it is
    #[arg(long)]
    pub(crate) exhaustive: bool,
    #[command(flatten)]
    pub(crate) marking: Marking,
    #[command(flatten)]
    pub(crate) opening: Opening,
}

#[derive(Args)]
pub(crate) struct Lineage {
    /// A model: a directory or one file
    pub(crate) first: PathBuf,
    /// The model that may have been made from it, or with it from another
    pub(crate) second: PathBuf,
    #[command(flatten)]
    pub(crate) opening: Opening,
}

#[derive(Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct Claim {
    #[command(subcommand)]
    pub(crate) open: Option<ClaimCommand>,
    #[command(flatten)]
    pub(crate) make: MakeClaim,
}

#[derive(Subcommand)]
pub(crate) enum ClaimCommand {
    /// Open a claim to a judge: the mark whole, or some blocks of it
    Open(OpenClaim),
}

/// All but absent where a claim is opened instead.
#[derive(Args)]
pub(crate) struct MakeClaim {
    /// The original, unmarked model: a directory or one file
    #[arg(required = true)]
    pub(crate) original: Option<PathBuf>,
    /// The owner's secret key
    #[arg(long, value_name = "FILE", required = true)]
    pub(crate) owner_key: Option<PathBuf>,
    /// Key of the organisation, to sign the claim with (PEM); the passphrase of an encrypted one is asked for
    #[arg(long, value_name = "PEM", required = true)]
    pub(crate) signing_key: Option<PathBuf>,
    /// Decrypt the signing key with the passphrase in this file
    #[arg(long, value_name = "FILE")]
    pub(crate) key_passphrase_file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) marking: Marking,
    /// The new claim
    #[arg(short, long, value_name = "CLAIM", required = true)]
    pub(crate) output: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct OpenClaim {
    /// The claim
    pub(crate) claim: PathBuf,
    /// The owner's secret key
    #[arg(long, value_name = "FILE")]
    pub(crate) owner_key: PathBuf,
    /// The original, unmarked model
    #[arg(long, value_name = "MODEL")]
    pub(crate) original: PathBuf,
    /// Open the mark whole; the judge needs the original too, and can find and remove the mark
    #[arg(long, required_unless_present = "blocks", conflicts_with = "blocks")]
    pub(crate) whole: bool,
    /// Open so many blocks and nothing else
    #[arg(long, value_name = "N", requires = "draw")]
    pub(crate) blocks: Option<usize>,
    /// Open the blocks that this public value draws: one that nobody knew when the claim was published
    #[arg(long, value_name = "VALUE", requires = "blocks")]
    pub(crate) draw: Option<String>,
    /// Open the code too, so that the judge can tell the copy
    #[arg(long, requires = "blocks")]
    pub(crate) code: bool,
    /// The new opening
    #[arg(short, long, value_name = "OPENING")]
    pub(crate) output: PathBuf,
    /// Where to write the blocks of the original [default: OPENING with the ending .safetensors]
    #[arg(long, value_name = "FILE", requires = "blocks")]
    pub(crate) blocks_output: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct Judge {
    /// The claim
    pub(crate) claim: PathBuf,
    /// The model in question: a directory or one file
    pub(crate) suspect: PathBuf,
    /// Public key of the organisation that claims (PEM)
    #[arg(long, value_name = "PEM")]
    pub(crate) public_key: PathBuf,
    /// What the owner has opened
    #[arg(long = "opening", value_name = "OPENING")]
    pub(crate) opened: PathBuf,
    /// The original, or the file of the blocks that were opened
    #[arg(long, value_name = "MODEL")]
    pub(crate) original: PathBuf,
    /// The value by which blocks had to be drawn
    #[arg(long, value_name = "VALUE")]
    pub(crate) draw: Option<String>,
    /// File with the labels of all copies given out, one a line
    #[arg(long, value_name = "FILE")]
    pub(crate) copies: Option<PathBuf>,
    /// Another claim on the same suspect: whose mark is in whose original?
    #[arg(long, value_name = "CLAIM", requires_all = ["against_opened", "against_original", "against_public_key"])]
    pub(crate) against: Option<PathBuf>,
    /// What its owner has opened
    #[arg(long = "against-opening", value_name = "OPENING", requires = "against")]
    pub(crate) against_opened: Option<PathBuf>,
    /// Its original
    #[arg(long, value_name = "MODEL", requires = "against")]
    pub(crate) against_original: Option<PathBuf>,
    /// Public key of the organisation that makes it (PEM)
    #[arg(long, value_name = "PEM", requires = "against")]
    pub(crate) against_public_key: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) opening: Opening,
}

#[derive(Args)]
pub(crate) struct Protect {
    /// The original model: a directory or one file
    pub(crate) model: PathBuf,
    /// The owner's secret key, to mark with
    #[arg(long, value_name = "FILE")]
    pub(crate) owner_key: PathBuf,
    /// Signing key (PEM); the passphrase of an encrypted one is asked for
    #[arg(long, value_name = "PEM")]
    pub(crate) signing_key: PathBuf,
    /// Decrypt the signing key with the passphrase in this file
    #[arg(long, value_name = "FILE")]
    pub(crate) key_passphrase_file: Option<PathBuf>,
    /// Who may open it: a recipient (wmrecipient1…), or a file that holds one or a symmetric key
    #[arg(short, long = "recipient", value_name = "RECIPIENT|FILE", required = true)]
    pub(crate) recipients: Vec<String>,
    /// Label of this copy, such as licensee-0017
    #[arg(long, value_name = "LABEL")]
    pub(crate) copy: Option<String>,
    /// Bind the encryption to a context, such as acme/llama-1b@3
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(crate) context: String,
    #[command(flatten)]
    pub(crate) marking: Marking,
    /// The new encrypted directory
    #[arg(short, long, value_name = "OUT")]
    pub(crate) output: PathBuf,
    /// Where to write the record of this copy [default: OUT.record.json]
    #[arg(long, value_name = "FILE")]
    pub(crate) record: Option<PathBuf>,
}
