//! The parts of a model besides its weights that change what it does: chat template, tokenizer, code.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::manifest::Manifest;
use crate::crypto;
use crate::error::Result;
use crate::format::{Format, detect, gguf};
use crate::io::{ReadAt, ReadAtExt, Tree};
use crate::json::Strict;

/// Larger than any tokenizer, in bytes: what is larger is not taken for one.
const MAX_SIZE: u64 = 256 << 20;
/// Configuration of a tokenizer, which may hold chat templates.
const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
const GGUF_TEMPLATE: &str = "tokenizer.chat_template";

/// A part of a model and its digest.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Component {
    /// What it is.
    pub kind: Kind,
    /// The path of its file; of a chat template inside of a file, the path, `#` and where it stands there.
    pub name: String,
    /// SHA-256 of the file, or of the text inside of it.
    pub digest: [u8; 32],
}

/// What a component is.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Kind {
    /// What turns a conversation into a prompt: a program in Jinja.
    ChatTemplate,
    /// What programs load and run: source text, scripts, libraries.
    Code,
    /// What turns text into numbers.
    Tokenizer,
}

impl Kind {
    /// The word in statements.
    pub fn word(self) -> &'static str {
        match self {
            Self::ChatTemplate => "chat-template",
            Self::Code => "code",
            Self::Tokenizer => "tokenizer",
        }
    }

    /// What a file is, to go by its name.
    pub fn of(path: &str) -> Option<Self> {
        let name = path.rsplit('/').next().unwrap_or(path).to_ascii_lowercase();
        let (stem, extension) = name.rsplit_once('.').unwrap_or((&name, ""));
        match extension {
            "jinja" | "jinja2" => Some(Self::ChatTemplate),
            "json" if stem.starts_with("chat_template") => Some(Self::ChatTemplate),
            "py" | "pyc" | "pyx" | "ipynb" | "so" | "dll" | "dylib" | "sh" | "js" | "mjs" | "lua" | "c" | "cc"
            | "cpp" | "cu" | "h" | "ptx" | "java" | "jar" => Some(Self::Code),
            _ if TOKENIZERS.contains(&name.as_str()) => Some(Self::Tokenizer),
            _ => None,
        }
    }
}

/// Files by which the usual libraries know a tokenizer.
const TOKENIZERS: [&str; 14] = [
    "added_tokens.json",
    "merges.txt",
    "sentencepiece.bpe.model",
    "source.spm",
    "special_tokens_map.json",
    "spiece.model",
    "target.spm",
    "tekken.json",
    "tokenizer.json",
    "tokenizer.model",
    TOKENIZER_CONFIG,
    "vocab.bpe",
    "vocab.json",
    "vocab.txt",
];

/// The components among the files of a manifest, ordered by kind and name.
pub(super) fn of(tree: &dyn Tree, manifest: &Manifest) -> Result<Vec<Component>> {
    let mut components = Vec::new();
    let listed = manifest.paths();
    if tree.is_single_file() {
        // whatever it is called
        for entry in tree.entries() {
            let source = tree.open(&entry.path)?;
            if detect(&*source)? == Some(Format::Gguf) {
                components.extend(gguf_templates(&*source, ".")?);
            }
        }
    }
    for entry in tree.entries().iter().filter(|entry| !tree.is_single_file() && listed.contains(entry.path.as_str())) {
        let path = &entry.path;
        let component = |kind, name: String, bytes: &[u8]| Component { kind, name, digest: crypto::sha256(&[bytes]) };
        match Kind::of(path) {
            Some(kind) if entry.size <= MAX_SIZE => {
                let bytes = tree.open(path)?.read_all(MAX_SIZE)?;
                if path.ends_with(TOKENIZER_CONFIG) {
                    components.extend(templates(&bytes).into_iter().map(|(place, text)| {
                        component(Kind::ChatTemplate, format!("{path}#{place}"), text.as_bytes())
                    }));
                }
                components.push(component(kind, path.clone(), &bytes));
            }
            _ if Format::of_name(path) == Some(Format::Gguf) => {
                components.extend(gguf_templates(&*tree.open(path)?, path)?);
            }
            _ => {}
        }
    }
    components.sort_by(|a, b| (a.kind, &a.name).cmp(&(b.kind, &b.name)));
    components.dedup_by(|a, b| (a.kind, &a.name) == (b.kind, &b.name));
    Ok(components)
}

/// The chat templates in the metadata of a GGUF file.
fn gguf_templates(source: &dyn ReadAt, path: &str) -> Result<Vec<Component>> {
    let index = gguf::read(source)?;
    let templates = index.metadata().iter().filter(|(key, _)| key.starts_with(GGUF_TEMPLATE));
    let component = |(key, text): (&String, &String)| Component {
        kind: Kind::ChatTemplate,
        name: format!("{path}#{key}"),
        digest: crypto::sha256(&[text.as_bytes()]),
    };
    Ok(templates.map(component).collect())
}

/// The chat templates in the configuration of a tokenizer: one text, or several with names.
fn templates(config: &[u8]) -> Vec<(String, String)> {
    const KEY: &str = "chat_template";
    let Ok(Strict(Value::Object(mut config))) = serde_json::from_slice(config) else { return Vec::new() };
    match config.remove(KEY) {
        Some(Value::String(text)) => vec![(KEY.into(), text)],
        Some(Value::Array(list)) => {
            let named = list.into_iter().filter_map(|entry| {
                let text = |key: &str| entry.get(key).and_then(Value::as_str).map(str::to_owned);
                Some((format!("{KEY}/{}", text("name")?), text("template")?))
            });
            named.collect()
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_what_their_names_say() {
        for (path, kind) in [
            ("chat_template.jinja", Some(Kind::ChatTemplate)),
            ("additional_chat_templates/tool_use.jinja", Some(Kind::ChatTemplate)),
            ("chat_template.json", Some(Kind::ChatTemplate)),
            ("modeling_x.py", Some(Kind::Code)),
            ("ops/kernel.SO", Some(Kind::Code)),
            ("tokenizer.json", Some(Kind::Tokenizer)),
            ("1_Pooling/config.json", None),
            ("model.safetensors", None),
            ("py", None),
        ] {
            assert_eq!(Kind::of(path), kind, "{path}");
        }
    }

    #[test]
    fn templates_stand_in_the_configuration_of_a_tokenizer() {
        let found = |text: &str| templates(text.as_bytes());
        assert_eq!(found(r#"{"chat_template":"{{x}}"}"#), [("chat_template".into(), "{{x}}".into())]);
        let several = r#"{"chat_template":[{"name":"default","template":"a"},{"name":"tool","template":"b"}]}"#;
        let expected = [("chat_template/default".into(), "a".into()), ("chat_template/tool".into(), "b".into())];
        assert_eq!(found(several), expected);
        for none in ["{}", "[]", "{", r#"{"chat_template":null}"#, r#"{"chat_template":"a","chat_template":"b"}"#] {
            assert!(found(none).is_empty(), "{none}");
        }
    }
}
