//! What a suspect is still worth.

use std::os::unix::fs::symlink;
use std::path::Path;

use serde_json::Value;

use crate::Result;
use crate::lab::Lab;
use crate::source::is_gguf;

/// For a sentence encoder the cosine of embeddings with those of the original, mean and least; for a Llama its
/// perplexity. `None` where neither can be said.
pub(crate) fn of(lab: &Lab, suspect: &Path) -> Result<Option<String>> {
    let beside = if lab.model.is_dir() { &lab.model } else { lab.model.parent().unwrap_or(Path::new(".")) };
    if is_gguf(&lab.model) {
        let files = [lab.model.as_os_str(), suspect.as_os_str()];
        return Ok(lab.script("examples/robustness/perplexity.py", files).unwrap_or_default());
    }
    let is_encoder = ["config.json", "tokenizer.json"].iter().all(|name| beside.join(name).exists());
    if !is_encoder || suspect.extension().is_none_or(|extension| extension != "safetensors") {
        return Ok(None);
    }
    let directories = [("before", lab.plain()), ("after", suspect.to_owned())].map(|(name, weights)| {
        let directory = lab.path(name);
        std::fs::create_dir_all(&directory)?;
        for (name, target) in
            [("config.json", beside.join("config.json")), ("tokenizer.json", beside.join("tokenizer.json"))]
                .into_iter()
                .chain([("model.safetensors", weights)])
        {
            let link = directory.join(name);
            std::fs::remove_file(&link).ok();
            symlink(std::path::absolute(target)?, link)?;
        }
        Ok::<_, std::io::Error>(directory)
    });
    let [before, after] = directories;
    // a model that lacks parts has no embeddings
    let Ok(Some(printed)) = lab.script("tests/python/embeddings.py", [before?, after?]) else { return Ok(None) };
    let cosines: Value = serde_json::from_str(&printed)?;
    let cosine = |name: &str| cosines[name].as_f64().unwrap_or(f64::NAN);
    Ok(Some(format!("{:.6} {:.6}", cosine("cosine_mean"), cosine("cosine_min"))))
}
