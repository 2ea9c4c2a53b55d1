//! Files that abuse model formats, each with the answer that it must get: the ledger of `attacks/`.

use std::collections::BTreeMap;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

use serde::Deserialize;
use weightmark::error::{Error, Result};
use weightmark::format::{self, Format, ModelIndex, load};
use weightmark::io::{FileAt, ReadAt, SliceAt, tree};
use weightmark::tensor::{Index, Storage, TensorInfo};

use super::memory::allocated;
use super::support::{Home, Random, attacks, python};

/// What an answer may take.
const TIME: Duration = Duration::from_millis(50);
const MEMORY: usize = 16 << 20;

/// Rows that do not hold yet. One that does must leave this list.
const OPEN: [&str; 0] = [];

/// The answer of a reader to what is fine.
const READS: &str = "reads";

#[derive(Deserialize)]
struct Row {
    format: String,
    case: String,
    path: String,
    expect: Vec<String>,
    holds: Option<BTreeMap<String, String>>,
    #[serde(default)]
    refused: BTreeMap<String, String>,
}

impl Row {
    fn name(&self) -> String {
        format!("{}/{}", self.format, self.case)
    }

    fn expects(&self, word: &str) -> bool {
        self.expect.iter().any(|expected| expected == word)
    }
}

/// All rows, their files in `home`.
fn ledger(home: &Home) -> Vec<Row> {
    let script = attacks("generate.py");
    python(["-B".as_ref(), script.as_os_str(), home.path("").as_os_str()]).ok();
    let rows: Vec<Row> = serde_json::from_slice(&home.read("ledger.json")).unwrap();
    assert!(rows.len() > 200, "only {} rows: does the test still read them?", rows.len());
    rows
}

/// What a reader says: a word and its sentence, or the tensors that it found and the files that it left closed.
type Answer = Result<(BTreeMap<String, String>, BTreeMap<String, String>), (String, String)>;

fn answer<T>(read: Result<T>, found: impl FnOnce(T) -> Answer) -> Answer {
    match read {
        Ok(read) => found(read),
        Err(Error::Format { cause, .. }) => Err((cause.word().into(), cause.to_string())),
        Err(Error::Io { op: "read", source, .. }) => Err(("tree".into(), source.to_string())),
        Err(other) => Err(("another error".into(), other.to_string())),
    }
}

/// A tensor as the ledger describes it: type, shape, and the bytes or that they were refused.
fn describe(source: &dyn ReadAt, tensor: &TensorInfo) -> String {
    let data = match load(source, tensor) {
        Ok(data) => data.iter().map(|byte| format!("{byte:02x}")).collect(),
        Err(Error::Format { .. }) => "refused".to_owned(),
        Err(other) => format!("another error: {other}"),
    };
    format!("{} {:?} {data}", tensor.dtype, tensor.shape)
}

/// Reads the index of a file by its name, if the name says what it must be, or by its content.
fn read_named(source: &dyn ReadAt, path: &str) -> Result<Index> {
    Format::of_name(path).map_or_else(|| format::read(source), |format| format.read(source))
}

fn tensors(source: &dyn ReadAt, index: &Index, prefix: &str) -> BTreeMap<String, String> {
    let describe = |tensor: &TensorInfo| match tensor.size() {
        0..0x1_0000 => describe(source, tensor),
        _ => format!("{} {:?}", tensor.dtype, tensor.shape),
    };
    index.tensors().iter().map(|tensor| (format!("{prefix}{}", tensor.name), describe(tensor))).collect()
}

/// Runs `work` until it is cheap, three times at most; says what the cheapest run still took too much of.
fn cheaply<T>(work: impl Fn() -> T) -> (std::thread::Result<T>, Option<String>) {
    let mut runs = (0..3).map(|_| {
        let started = Instant::now();
        let (done, bytes) = allocated(|| catch_unwind(AssertUnwindSafe(&work)));
        let time = started.elapsed();
        let excess = (time > TIME || bytes > MEMORY).then(|| format!("takes {time:.1?} and {} KiB", bytes >> 10));
        (done, excess)
    });
    let first = runs.next().unwrap();
    if first.1.is_none() || first.0.is_err() {
        return first;
    }
    runs.find(|(_, excess)| excess.is_none()).unwrap_or(first)
}

/// What is wrong with an answer.
fn judge(row: &Row, answer: &Answer) -> Option<String> {
    let wanted = row.expect.join(" or ");
    match answer {
        Err((word, sentence)) if !row.expects(word) => Some(format!("{word} rather than {wanted}: {sentence}")),
        Err(_) => None,
        Ok(_) if !row.expects(READS) => Some(format!("reads rather than {wanted}")),
        Ok((found, refused)) => {
            let holds = row.holds.iter().flatten();
            let fits = |found: &str, held: &str| found == held || (held.ends_with(']') && found.starts_with(held));
            let differs = holds.clone().find(|(name, held)| !found.get(*name).is_some_and(|found| fits(found, held)));
            if let Some((name, held)) = differs {
                return Some(format!("{name:?} is {:.99?} rather than {held:.99?}", found.get(name)));
            }
            let many = holds.count();
            (found.len() != many).then(|| format!("{} tensors rather than {many}", found.len())).or_else(|| {
                (*refused != row.refused).then(|| format!("{refused:?} are closed rather than {:?}", row.refused))
            })
        }
    }
}

/// What is wrong with how a file or directory is read.
fn fault(home: &Home, row: &Row) -> Option<String> {
    let path = home.path(&row.path);
    let (read, excess, found): (_, _, Box<dyn Fn() -> Answer>) = if path.is_dir() {
        let model = || tree::open(&path).and_then(|tree| Ok((ModelIndex::read(&*tree)?, tree)));
        let (read, excess) = cheaply(|| model().map(drop));
        let found = move || {
            answer(model(), |(model, tree)| {
                let files = model.files().iter();
                let found = files
                    .flat_map(|file| tensors(&tree.open(&file.path).unwrap(), &file.index, &format!("{}:", file.path)));
                let refused = model.refused().iter().map(|(path, cause)| (path.clone(), cause.word().to_owned()));
                Ok((found.collect(), refused.collect()))
            })
        };
        (read.map(drop), excess, Box::new(found))
    } else {
        let source = FileAt::open(&path).unwrap();
        let (read, excess) = cheaply(|| read_named(&source, &row.path).map(drop));
        let found = move || {
            let named = read_named(&source, &row.path);
            let told = format::read(&source); // whether or not it has a name
            match (&named, &told) {
                (Ok(named), Ok(told)) if named == told => {}
                (Err(_), Err(Error::Format { cause, .. }))
                    if cause.word() == "unknown" || row.expects(cause.word()) => {}
                _ => return Err(("by its content another".into(), format!("{told:.199?}"))),
            }
            answer(named, |index| Ok((tensors(&source, &index, ""), BTreeMap::new())))
        };
        (read.map(drop), excess, Box::new(found))
    };
    if read.is_err() {
        return Some("panics".into());
    }
    excess.or_else(|| match catch_unwind(AssertUnwindSafe(found)) {
        Ok(answer) => judge(row, &answer),
        Err(_) => Some("panics when its tensors are loaded".into()),
    })
}

#[test]
fn every_attack_gets_the_answer_of_the_ledger_at_once_and_cheaply() {
    let home = Home::new();
    let (mut held, mut faults) = (0, Vec::new());
    for row in ledger(&home) {
        match (fault(&home, &row), OPEN.contains(&row.name().as_str())) {
            (None, false) => held += 1,
            (Some(_), true) => {}
            (None, true) => faults.push(format!("{}: holds now", row.name())),
            (Some(fault), false) => faults.push(format!("{}: {fault}", row.name())),
        }
    }
    println!("{held} rows hold, {} are open", OPEN.len());
    assert!(faults.is_empty(), "{} rows do not hold:\n{}", faults.len(), faults.join("\n"));
}

#[test]
fn files_cut_anywhere_or_with_any_bit_flipped_are_refused_or_read_within_the_file() {
    let home = Home::new();
    let mut faults = Vec::new();
    for row in ledger(&home).iter().filter(|row| !["directories", "gate"].contains(&&*row.format)) {
        let path = home.path(&row.path);
        let (is_whole, size) = (row.case.starts_with("whole"), fs::metadata(&path).unwrap().len());
        if !is_whole && size > 4096 {
            continue;
        }
        let (cuts, flips) = match (is_whole, size) {
            (true, ..=1024) => (size, size * 8),
            (true, ..=4096) => (size, 2000),
            (true, _) => (200, 2000),
            (false, _) => (size.min(16), (size * 8).min(64)),
        };
        let (file, mut random) = (fs::read(&path).unwrap(), Random(size));
        for i in 0..cuts {
            let end = (i * size / cuts) as usize;
            if !holds_within(&file[..end], &row.path) {
                faults.push(format!("{} cut to {end} bytes", row.name()));
            }
        }
        for i in 0..flips {
            let bit = if flips == size * 8 { i } else { random.bits() % (size * 8) };
            let mut flipped = file.clone();
            flipped[(bit / 8) as usize] ^= 1 << (bit % 8);
            if !holds_within(&flipped, &row.path) {
                faults.push(format!("{} with bit {bit} flipped", row.name()));
            }
        }
    }
    assert!(faults.is_empty(), "{} panic, or lead beyond the file:\n{}", faults.len(), faults.join("\n"));
}

/// Whether a file is refused, or read without leaving it, and loaded or refused likewise.
fn holds_within(bytes: &[u8], path: &str) -> bool {
    let source = SliceAt::new(bytes);
    let read = || {
        let Ok(index) = read_named(&source, path) else { return true };
        index.tensors().iter().all(|tensor| {
            let _ = tensor.size() > 1 << 20 || load(&source, tensor).is_ok();
            matches!(tensor.storage, Storage::External(_)) || tensor.span.end <= bytes.len() as u64
        })
    };
    catch_unwind(AssertUnwindSafe(read)).unwrap_or(false)
}

#[test]
fn the_tables_of_the_readme_are_those_of_the_generator() {
    let tables = python(["-B".as_ref(), attacks("generate.py").as_os_str(), Path::new("--table").as_os_str()]).ok();
    let readme = fs::read_to_string(attacks("README.md")).unwrap();
    assert!(readme.ends_with(&tables), "run attacks/generate.py --table and replace the tables of attacks/README.md");
}
