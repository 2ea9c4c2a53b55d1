//! Encryption beside plain reads and peers, in one run: `cargo bench --features full --bench encryption`.
//!
//! 1 GiB of weights in the page cache. `benches/README.md` says what is measured, and what was seen.

mod turns;

use std::cell::RefCell;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};
use weightmark::Model;
use weightmark::encryption::{Encryptor, Reader, Rewrap};
use weightmark::io::{FileAt, Memory, ReadAt, ReadAtExt, copy};
use weightmark::keys::XWingIdentity;

use turns::{Contestant, Outcome, TURNS, all, compare, run, write_model};

/// Tensors of 128 MiB, then tensors of 8 MiB: 1 GiB in all.
const LARGE: usize = 6;
const SMALL: usize = 32;
/// What one `pread` of a plain reader takes, as fast as any size here.
const PIECE: usize = 1 << 20;

fn main() -> Outcome {
    let home = tempfile::tempdir()?;
    let path = |name: &str| home.path().join(name);
    let text = |name: &str| path(name).display().to_string();
    write_model(&path("model"), std::iter::repeat_n(128, LARGE).chain(std::iter::repeat_n(8, SMALL)))?;
    let size = fs::metadata(path("model"))?.len();
    let (identity, other) = (XWingIdentity::generate()?, XWingIdentity::generate()?);
    identity.save(path("id.key"))?;
    let encryptor = Encryptor::to([identity.recipient()]);
    encryptor.encrypt(path("model"), path("model.wmenc"))?;
    println!("{} MiB, fastest of {TURNS} turns", size >> 20);

    let plain = FileAt::open(path("model"))?;
    let sealed = Reader::open(FileAt::open(path("model.wmenc"))?, &[&identity])?;
    let warm = RefCell::new(vec![1; size as usize]);
    let threads = [1, 2].map(|n| ThreadPoolBuilder::new().num_threads(n).build());
    for (n, pool) in threads.into_iter().enumerate() {
        let (pool, n) = (pool?, n + 1);
        compare(
            &format!("load into new memory, {n} threads"),
            Some(size),
            [
                all("pread, pages of 4 KiB", || {
                    let mut new = vec![0; size as usize];
                    read_plain(&pool, &plain, &mut new)
                }),
                all("pread, huge pages", || {
                    let mut new = Memory::zeroed(size)?;
                    read_plain(&pool, &plain, &mut new)
                }),
                all("weightmark", || pool.install(|| Ok(sealed.read_memory(0..size)?))),
            ],
        )?;
        compare(
            &format!("load into the caller's warm buffer, {n} threads"),
            Some(size),
            [
                all("pread", || read_plain(&pool, &plain, &mut warm.borrow_mut())),
                all("weightmark", || {
                    let warm = &mut *warm.borrow_mut();
                    Ok(pool.install(|| sealed.read_at(0, warm))?)
                }),
            ],
        )?;
        let stream = |source: &dyn ReadAt| pool.install(|| Ok(copy(source, &|_, _| Ok(()), &())?));
        compare(
            &format!("stream through reused buffers, {n} threads"),
            Some(size),
            [all("pread", || stream(&plain)), all("weightmark", || stream(&sealed))],
        )?;
        let memory = Path::new("/dev/shm").is_dir().then(|| tempfile::tempdir_in("/dev/shm")).transpose()?;
        let place = |name: &str| memory.as_ref().map_or(path(name), |memory| memory.path().join(name));
        compare(
            &format!("encrypt, file to file in memory, {n} threads"),
            Some(size),
            [
                all("copy", || pool.install(|| copy_file(&plain, &place("new")))),
                all("weightmark", || {
                    let _ = fs::remove_file(place("new")); // absent in the first turn
                    pool.install(|| Ok(encryptor.encrypt(path("model"), place("new"))?))
                }),
            ],
        )?;
        drop(memory);
    }

    let python = std::env::var("PEERS_PYTHON").ok();
    let peers = |kind: &'static str| -> Outcome<Vec<Contestant<'_>>> {
        let Some(python) = &python else { return Ok(Vec::new()) };
        let mut contestants: Vec<Contestant<'_>> = Vec::new();
        for peer in ["safetensors", "cryptotensors", "tensorizer"] {
            let args =
                |job: &str| [peer_script(), peer.into(), job.into(), text("model"), text(&format!("model.{peer}"))];
            if measured(python, &args("save")).is_err() {
                println!("({peer} is not installed there, or failed)");
                continue;
            }
            let args = args(kind);
            contestants.push((peer, Box::new(move || measured(python, &args).map(Some))));
        }
        Ok(contestants)
    };
    let open = |name: &str| Model::options().identity(load(&path("id.key"))?).open(path(name));
    let mut contest = vec![all("weightmark, all tensors", || {
        let model = open("model.wmenc")?;
        let names: Vec<_> = model.tensors().map(|(_, tensor)| tensor.name.clone()).collect();
        Ok(names.iter().try_for_each(|name| model.tensor(name).map(drop))?)
    })];
    contest.extend(peers("load")?);
    compare("load all tensors from a cold open, through the format", Some(size), contest)?;
    let mut contest = vec![
        all("plain, weightmark", || Ok(Model::options().open(path("model"))?.tensor("t20")?)),
        all("weightmark", || Ok(open("model.wmenc")?.tensor("t20")?)),
    ];
    contest.extend(peers("tensor")?);
    compare("one tensor of 8 MiB from a cold open", None, contest)?;
    let (plain_model, model) = (Model::options().open(path("model"))?, open("model.wmenc")?);
    // rows of 16 KiB: 40 KiB are two and a half, so three
    let mut contest = vec![
        all("plain, weightmark", || Ok(plain_model.rows("t0", 1001..1004)?)),
        all("weightmark", || Ok(model.rows("t0", 1001..1004)?)),
        all("weightmark, from a cold open", || Ok(open("model.wmenc")?.rows("t0", 1001..1004)?)),
    ];
    contest.extend(peers("rows")?);
    compare("48 KiB of rows of a tensor of 128 MiB", None, contest)?;
    compare(
        "change recipients of 1 GiB",
        None,
        [
            all("write 16 KiB and fsync", || {
                let file = fs::File::create(path("small"))?;
                std::io::Write::write_all(&mut &file, &[1; 16384])?;
                Ok(file.sync_all()?)
            }),
            all("rewrap: add one", || {
                Ok(Rewrap::new().also([other.recipient()]).apply(path("model.wmenc"), &[&identity])?)
            }),
        ],
    )?;
    whole_processes(&path, &text, size)
}

/// From file to file, as a user at a terminal would: ours ends with an `fsync`, the others do not.
fn whole_processes(path: &dyn Fn(&str) -> std::path::PathBuf, text: &dyn Fn(&str) -> String, size: u64) -> Outcome {
    let has_age = run("age-keygen", &["-o", &text("age.key")]).is_ok();
    if has_age {
        fs::write(path("age.pub"), Command::new("age-keygen").args(["-y", &text("age.key")]).output()?.stdout)?;
        run("age", &["-R", &text("age.pub"), "-o", &text("model.age"), &text("model")])?;
    }
    let binary = env!("CARGO_BIN_EXE_weightmark");
    let to_new = |program: &str, args: &[&str]| -> Outcome {
        let _ = fs::remove_file(path("new")); // absent in the first turn
        run(program, args)
    };
    let (model, new, public, secret) = (text("model"), text("new"), text("id.key.pub"), text("id.key"));
    let (encrypted, age_key, age_public, age_file) =
        (text("model.wmenc"), text("age.key"), text("age.pub"), text("model.age"));
    let mut encrypt = vec![
        all("cp", || to_new("cp", &[&model, &new])),
        all("cp, fsync", || to_new("cp", &[&model, &new]).and_then(|()| run("sync", &[&new]))),
        all("weightmark", || to_new(binary, &["encrypt", &model, "-r", &public, "-o", &new])),
    ];
    let mut decrypt = vec![
        all("cp", || to_new("cp", &[&model, &new])),
        all("cp, fsync", || to_new("cp", &[&model, &new]).and_then(|()| run("sync", &[&new]))),
        all("weightmark", || to_new(binary, &["decrypt", &encrypted, "-i", &secret, "-o", &new])),
        all("weightmark, to stdout", || to_new(binary, &["decrypt", &encrypted, "-i", &secret, "-o", "-"])),
    ];
    if has_age {
        encrypt.push(all("age", || to_new("age", &["-R", &age_public, "-o", &new, &model])));
        decrypt.push(all("age", || to_new("age", &["-d", "-i", &age_key, "-o", &new, &age_file])));
    }
    compare("encrypt, whole processes, file to file on disk", Some(size), encrypt)?;
    compare("decrypt, whole processes, file to file on disk", Some(size), decrypt)
}

/// Reads all of a file as fast as `pread` can.
fn read_plain(pool: &ThreadPool, file: &FileAt, out: &mut [u8]) -> Outcome {
    let read = |(i, piece): (usize, &mut [u8])| file.read_at((i * PIECE) as u64, piece);
    Ok(pool.install(|| out.par_chunks_mut(PIECE).enumerate().try_for_each(read))?)
}

/// Copies a file as [`Encryptor`] writes one, without encryption.
fn copy_file(source: &FileAt, to: &Path) -> Outcome {
    use std::os::unix::fs::FileExt;
    let _ = fs::remove_file(to); // absent in the first turn
    let file = fs::File::create(to)?;
    file.set_len(source.size())?;
    let failed = Mutex::new(None);
    copy(
        source,
        &|offset, bytes| {
            if let Err(error) = file.write_all_at(bytes, offset) {
                *failed.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(error);
            }
            Ok(())
        },
        &(),
    )?;
    file.sync_all()?;
    let failed = failed.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    failed.map_or(Ok(()), |error| Err(error.into()))
}

fn load(path: &Path) -> weightmark::Result<XWingIdentity> {
    XWingIdentity::load(path)
}

fn peer_script() -> String {
    concat!(env!("CARGO_MANIFEST_DIR"), "/benches/peers.py").into()
}

/// The milliseconds that a peer says it took.
fn measured(python: &str, args: &[String]) -> Outcome<Duration> {
    let output = Command::new(python).args(args).output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into());
    }
    let milliseconds: f64 = String::from_utf8(output.stdout)?.trim().parse()?;
    Ok(Duration::from_secs_f64(milliseconds / 1000.0))
}
