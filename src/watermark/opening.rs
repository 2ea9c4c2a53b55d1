//! What an owner shows a judge in a dispute: the secret of everything, or those of some blocks that a later public value draws.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::carrier::Block;
use super::keystream::{Key, hash};
use super::merkle::{self, Digest};
use super::record::{Claimed, Holding};
use crate::error::{Cause, Result, WatermarkError};
use crate::format::safetensors::{header, is_known};
use crate::io::atomic::{Access, AtomicFile};
use crate::io::progress::{Progress, step};
use crate::io::{FileAt, ReadAt, ReadAtExt};
use crate::json::{self, AtMost, Hex, Object};
use crate::keys::OwnerKey;

const SCHEMA: &str = "weightmark/opening/1";
/// Most blocks that an opening shows.
pub(super) const MAX_OPENED: usize = 1024;
/// Longest path in a tree: of more leaves than any claim has.
const MAX_PATH: usize = 32;
/// Of 1024 blocks with the longest paths: 5 MiB.
const MAX_FILE: u64 = 8 << 20;

/// What an owner shows a judge. Whoever holds it can find the mark where it was opened, and remove it there.
#[derive(Debug)]
pub struct Opening {
    /// Digest of the claim.
    pub(super) claim: Digest,
    pub(super) shown: Shown,
}

/// Which blocks to open.
#[derive(Clone, Copy, Debug)]
#[allow(clippy::exhaustive_structs)]
pub struct Draw<'a> {
    /// The public value that draws them, which nobody could know when the claim was made.
    pub value: &'a str,
    /// How many.
    pub blocks: usize,
    /// Whether to open the code as well, so that copies can be told.
    pub code: bool,
}

/// How much is shown.
pub(super) enum Shown {
    /// The secret of everything.
    Whole(Key),
    /// The secrets of the blocks that a value draws, in that order, and maybe that of the code.
    Blocks { draw: String, blocks: Vec<Opened>, code: Option<Opened> },
}

/// A secret, and the paths that show it to be claimed.
pub(super) struct Opened {
    pub(super) secret: Key,
    /// In the tree of commitments.
    pub(super) secret_path: Vec<Digest>,
    /// In the tree of the original's blocks; none for the code.
    pub(super) block_path: Vec<Digest>,
}

impl Opening {
    /// Opens the mark whole. The judge needs the original, too.
    pub fn whole(
        claimed: &Claimed,
        owner: &OwnerKey,
        original: impl AsRef<Path>,
        progress: &dyn Progress,
    ) -> Result<Self> {
        let holding = claimed.record.holding(owner, original.as_ref(), progress)?;
        Ok(Self { claim: claimed.digest, shown: Shown::Whole(Key::new(*holding.mark.secret().bytes())) })
    }

    /// Opens the blocks that `draw` draws, and writes them to the new safetensors file `parts`: what the judge needs of the
    /// original.
    pub fn blocks(
        claimed: &Claimed,
        owner: &OwnerKey,
        original: impl AsRef<Path>,
        draw: &Draw<'_>,
        parts: impl AsRef<Path>,
        progress: &dyn Progress,
    ) -> Result<Self> {
        let (original, there) = (original.as_ref(), claimed.record.blocks());
        let count = draw.blocks.min(there);
        if count != draw.blocks || !(1..=MAX_OPENED).contains(&count) {
            let cause = WatermarkError::DrawCount { asked: draw.blocks, there };
            return Err(cause.on(original.display().to_string()));
        }
        let holding = claimed.record.holding(owner, original, progress)?;
        let (mark, commitments) = (&holding.mark, holding.mark.commitments());
        let drawn = drawn(&claimed.digest, draw.value, there, count);
        let chosen: Vec<&Block> = drawn.iter().filter_map(|i| holding.original.blocks().get(*i)).collect();
        let opened = drawn.iter().zip(&chosen).map(|(i, block)| Opened {
            secret: mark.block_secret(&holding.original.carrier(block).tensor.name, block.number),
            secret_path: merkle::path(commitments, *i),
            block_path: merkle::path(&holding.leaves, *i),
        });
        let blocks = opened.collect();
        let code = draw.code.then(|| Opened {
            secret: mark.code_secret(),
            secret_path: merkle::path(commitments, there),
            block_path: Vec::new(),
        });
        write_parts(&holding, &chosen, parts.as_ref(), progress)?;
        Ok(Self { claim: claimed.digest, shown: Shown::Blocks { draw: draw.value.to_owned(), blocks, code } })
    }

    /// Whether everything is shown.
    pub fn is_whole(&self) -> bool {
        matches!(self.shown, Shown::Whole(_))
    }

    /// Reads an opening.
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        let source = FileAt::open(path)?;
        Self::parse(&source.read_all(MAX_FILE)?).map_err(|cause| cause.on(source.name()))
    }

    /// Parses an opening, strictly.
    pub fn parse(bytes: &[u8]) -> Result<Self, WatermarkError> {
        let Text { schema, claim, whole, blocks } = json::parse(bytes).map_err(WatermarkError::MalformedOpening)?;
        let malformed = |problem: &str| Err(WatermarkError::MalformedOpening(problem.to_owned()));
        if schema != SCHEMA {
            return malformed("unknown schema");
        }
        let shown = match (whole, blocks) {
            (Some(Object(whole)), None) => Shown::Whole(Key::new(whole.secret.0)),
            (None, Some(Object(blocks))) if blocks.opened.0.is_empty() => return malformed("no blocks"),
            (None, Some(Object(BlocksText { draw, opened, code }))) => Shown::Blocks {
                draw,
                blocks: opened.0.into_iter().map(|Object(text)| Opened::from(text)).collect(),
                code: code.map(|Object(CodeText { secret, secret_path })| {
                    Opened::from(OpenedText { secret, secret_path, block_path: AtMost(Vec::new()) })
                }),
            },
            _ => return malformed("it opens neither the whole nor blocks, or both"),
        };
        Ok(Self { claim: claim.0, shown })
    }

    /// Writes the opening to a new file, for its owner alone.
    pub fn write(&self, path: impl AsRef<Path>) -> Result<()> {
        let text = serde_json::to_string_pretty(&Text::from(self));
        let text = text.map_err(|e| crate::error::Error::io("write", &path, std::io::Error::from(e)))?;
        AtomicFile::write(path, Access::Private, format!("{text}\n").as_bytes())
    }
}

/// The first `count` of `total` blocks, in the order in which `value` draws them for a claim (Fisher and Yates).
pub(super) fn drawn(claim: &Digest, value: &str, total: usize, count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..total).collect();
    for i in 0..count.min(total) {
        let [a, b, c, d, e, f, g, h, ..] = hash(&[b"draw", claim, value.as_bytes(), i.to_string().as_bytes()]);
        let left = (total - i) as u64;
        order.swap(i, i + (u64::from_be_bytes([a, b, c, d, e, f, g, h]) % left) as usize);
    }
    order.truncate(count);
    order
}

/// What a block is called in a file of blocks.
pub(super) fn part_name(tensor: &str, number: u64) -> String {
    format!("{tensor}#{number}")
}

/// Writes blocks to a safetensors file, one tensor each, in the order of the draw.
fn write_parts(holding: &Holding, blocks: &[&Block], path: &Path, progress: &dyn Progress) -> Result<()> {
    let original = &holding.original;
    let outlines: Vec<_> = blocks
        .iter()
        .map(|block| {
            let tensor = &original.carrier(block).tensor;
            let mut shape = tensor.shape.clone();
            shape.iter_mut().take(1).for_each(|rows| *rows = block.rows());
            let span = block.span(tensor);
            (part_name(&tensor.name, block.number), tensor.dtype, shape, span.end - span.start)
        })
        .collect();
    if let Some((name, ..)) = outlines.iter().find(|(_, dtype, ..)| !is_known(*dtype)) {
        return Err(WatermarkError::OnlyWhole(name.clone()).on(path.display().to_string()));
    }
    let file = AtomicFile::create(path, Access::Private)?;
    let rows = outlines.iter().map(|(name, dtype, shape, size)| (name.as_str(), *dtype, shape.as_slice(), *size));
    let head = header(rows, &Default::default())?;
    file.write_at(0, &head)?;
    progress.begin("open", outlines.iter().map(|(.., size)| size).sum());
    let mut at = head.len() as u64;
    for block in blocks {
        let bytes = original.bytes(block)?;
        file.write_at(at, &bytes)?;
        at += bytes.len() as u64;
        step(progress, bytes.len() as u64)?;
    }
    file.commit()
}

/// An opening as it is written.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Text {
    schema: String,
    claim: Hex<32>,
    #[serde(default, deserialize_with = "json::present", skip_serializing_if = "Option::is_none")]
    whole: Option<Object<WholeText>>,
    #[serde(default, deserialize_with = "json::present", skip_serializing_if = "Option::is_none")]
    blocks: Option<Object<BlocksText>>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct WholeText {
    secret: Hex<32>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct BlocksText {
    draw: String,
    opened: AtMost<Object<OpenedText>, MAX_OPENED>,
    #[serde(default, deserialize_with = "json::present", skip_serializing_if = "Option::is_none")]
    code: Option<Object<CodeText>>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct OpenedText {
    secret: Hex<32>,
    secret_path: AtMost<Hex<32>, MAX_PATH>,
    block_path: AtMost<Hex<32>, MAX_PATH>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct CodeText {
    secret: Hex<32>,
    secret_path: AtMost<Hex<32>, MAX_PATH>,
}

impl From<OpenedText> for Opened {
    fn from(text: OpenedText) -> Self {
        let digests = |path: AtMost<Hex<32>, MAX_PATH>| path.0.into_iter().map(|Hex(digest)| digest).collect();
        Self {
            secret: Key::new(text.secret.0),
            secret_path: digests(text.secret_path),
            block_path: digests(text.block_path),
        }
    }
}

impl From<&Opening> for Text {
    fn from(opening: &Opening) -> Self {
        let path = |digests: &[Digest]| AtMost(digests.iter().copied().map(Hex).collect());
        let text = |opened: &Opened| {
            Object(OpenedText {
                secret: Hex(*opened.secret.bytes()),
                secret_path: path(&opened.secret_path),
                block_path: path(&opened.block_path),
            })
        };
        let (whole, blocks) = match &opening.shown {
            Shown::Whole(secret) => (Some(Object(WholeText { secret: Hex(*secret.bytes()) })), None),
            Shown::Blocks { draw, blocks, code } => {
                let code = code.as_ref().map(|opened| {
                    Object(CodeText { secret: Hex(*opened.secret.bytes()), secret_path: path(&opened.secret_path) })
                });
                let opened = AtMost(blocks.iter().map(text).collect());
                (None, Some(Object(BlocksText { draw: draw.clone(), opened, code })))
            }
        };
        Self { schema: SCHEMA.to_owned(), claim: Hex(opening.claim), whole, blocks }
    }
}

impl std::fmt::Debug for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Whole(_) => f.write_str("Whole"),
            Self::Blocks { draw, blocks, .. } => write!(f, "Blocks({} of {draw:?})", blocks.len()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_are_without_repetition_and_depend_on_claim_and_value() {
        let all = drawn(&[1; 32], "a", 100, 100);
        let mut sorted = all.clone();
        sorted.sort_unstable();
        assert!(sorted.into_iter().eq(0..100));
        assert_eq!(drawn(&[1; 32], "a", 100, 7), all[..7]);
        assert_ne!(drawn(&[1; 32], "b", 100, 7), all[..7]);
        assert_ne!(drawn(&[2; 32], "a", 100, 7), all[..7]);
        // of the specification
        assert_eq!(drawn(&[0; 32], "beacon-1", 10, 10), [9, 2, 4, 3, 8, 7, 1, 5, 0, 6]);
    }

    #[test]
    fn openings_survive_their_text_and_absurd_ones_are_refused() {
        let opened = || Opened { secret: Key::new([3; 32]), secret_path: vec![[4; 32]; 2], block_path: vec![[5; 32]] };
        let whole = Opening { claim: [1; 32], shown: Shown::Whole(Key::new([2; 32])) };
        let blocks = Shown::Blocks { draw: "v".into(), blocks: vec![opened(), opened()], code: Some(opened()) };
        let blocks = Opening { claim: [1; 32], shown: blocks };
        for opening in [&whole, &blocks] {
            let text = serde_json::to_string(&Text::from(opening)).unwrap();
            let again = Opening::parse(text.as_bytes()).unwrap();
            assert_eq!(serde_json::to_string(&Text::from(&again)).unwrap(), text);
        }
        let text = serde_json::to_string(&Text::from(&blocks)).unwrap();
        let digest = "05".repeat(32);
        for (from, to) in [
            ("opening/1", "opening/2"),
            ("\"blocks\":", "\"whole\":{\"secret\":\"00\"},\"blocks\":"),
            ("\"draw\":\"v\"", "\"draw\":\"v\",\"draw\":\"v\""),
            ("\"draw\":\"v\",", ""),
            ("\"draw\"", "\"x\":0,\"draw\""),
            (&format!("[\"{digest}\"]"), &format!("[{}\"{digest}\"]", format!("\"{digest}\",").repeat(40))),
            (&format!("[\"{digest}\"]"), "[5]"),
            ("\"opened\":[{", "\"opened\":[[],{"),
            ("\"claim\":\"01", "\"claim\":\"0A"),
        ] {
            assert!(text.contains(from), "{from}");
            assert!(Opening::parse(text.replacen(from, to, 1).as_bytes()).is_err(), "{from} -> {to}");
        }
        for text in ["", "[]", "{}", r#"{"schema":"weightmark/opening/1","claim":""}"#] {
            assert!(Opening::parse(text.as_bytes()).is_err(), "{text}");
        }
    }
}
