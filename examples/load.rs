//! Loads every tensor of a model, as a server does, and says how many milliseconds that took, the faster of two times:
//! `cargo run --release --example load -- MODEL [IDENTITY]`.

use std::time::{Duration, Instant};

use rayon::prelude::*;
use weightmark::{Model, Result};

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (model, identity) = (arguments.next().unwrap_or_default(), arguments.next());
    let mut fastest = Duration::MAX;
    for _ in 0..2 {
        let start = Instant::now(); // the first time, threads start and memory is new to the process
        let options = match &identity {
            Some(path) => with_identity(path)?,
            None => Model::options(),
        };
        let model = options.open(&model)?;
        let names: Vec<&str> = model.tensors().map(|(_, info)| info.name.as_str()).collect();
        let tensors = names.par_iter().map(|name| model.tensor(name)).collect::<Result<Vec<_>>>()?;
        fastest = fastest.min(start.elapsed());
        drop(tensors);
    }
    println!("{:.3} ms", 1000.0 * fastest.as_secs_f64());
    Ok(())
}

#[cfg(feature = "encryption")]
fn with_identity(path: &str) -> Result<weightmark::model::OpenOptions> {
    Ok(Model::options().identity(weightmark::keys::load_identity(path)?))
}

#[cfg(not(feature = "encryption"))]
fn with_identity(_: &str) -> Result<weightmark::model::OpenOptions> {
    Err(weightmark::Error::ApiMisuse("this build cannot decrypt"))
}
