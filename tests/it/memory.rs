//! How much memory and how many bytes of a file it takes, whatever the size of the model and whatever a file claims.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use weightmark::encryption::{Decryptor, Encryptor, Reader, inspect};
use weightmark::error::{EncryptionError, Error, Result};
use weightmark::io::tree::{SingleFile, Tree};
use weightmark::io::{FileAt, MmapAt, ReadAt, ReadAtExt, SliceAt};
use weightmark::keys::{Identity, XWingIdentity};
use weightmark::signing::{Manifest, Scope, VerifiedTree};

use super::support::{Home, Random, python};

const CHUNK: u64 = 16 << 10;

/// The system's allocator, which remembers how much each thread has asked for.
struct Counting;

thread_local! {
    static ASKED: Cell<usize> = const { Cell::new(0) };
}

#[global_allocator]
static COUNTING: Counting = Counting;

fn count(bytes: usize) {
    let _ = ASKED.try_with(|asked| asked.set(asked.get() + bytes)); // a thread that ends is not counted
}

// SAFETY: every call is handed to the system's allocator as it is; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: as the caller promises.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size);
        // SAFETY: as the caller promises.
        unsafe { System.realloc(at, layout, size) }
    }
}

/// Bytes that `work` allocates on this thread, freed or not.
pub(super) fn allocated<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = ASKED.get();
    let done = work();
    (done, ASKED.get() - before)
}

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut random = Random(seed);
    (0..len.div_ceil(8)).flat_map(|_| random.bits().to_le_bytes()).take(len).collect()
}

/// A source that counts the bytes that are read of it.
struct Counted<R> {
    source: R,
    read: AtomicU64,
}

impl<R: ReadAt> ReadAt for Counted<R> {
    fn size(&self) -> u64 {
        self.source.size()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.read.fetch_add(buf.len() as u64, Ordering::Relaxed);
        self.source.read_at(offset, buf)
    }

    fn name(&self) -> &str {
        self.source.name()
    }
}

#[test]
fn reads_into_the_callers_buffer_allocate_nothing() {
    let home = Home::new();
    let text = noise(1, 4 << 20);
    let identity = XWingIdentity::generate().unwrap();
    let sealed = Encryptor::to([identity.recipient()]).encrypt_bytes("m", &text).unwrap();
    home.write("m.wmenc", sealed);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    pool.install(|| {
        let reader = Reader::open(FileAt::open(home.path("m.wmenc")).unwrap(), &[&identity as &dyn Identity]).unwrap();
        let mut buf = vec![0; 3 << 20];
        reader.read_at(0, &mut buf).unwrap();
        let ((), some) = allocated(|| drop(std::hint::black_box(vec![0u8; 100])));
        assert_eq!(some, 100, "allocations are not counted");
        for (offset, len) in
            [(0, 3 << 20), (CHUNK, 3 << 20), (1, 3 << 20), (CHUNK + 77, (3 << 20) - 5), (5, 9), (99, 0)]
        {
            let buf = &mut buf[..len];
            let (read, bytes) = allocated(|| reader.read_at(offset, buf));
            read.unwrap();
            assert_eq!(bytes, 0, "{len} bytes from {offset}");
            assert!(buf == &text[offset as usize..offset as usize + len], "{len} bytes from {offset}");
        }
    });
}

#[test]
fn verified_reads_allocate_what_is_around_their_edges() {
    const GROUP: usize = 64 << 10;
    let text = noise(4, 4 << 20);
    let tree = || Box::new(SingleFile::new("weights", Arc::new(SliceAt::new(text.clone()))));
    let (manifest, outboard) = Manifest::with_outboard(&*tree(), &Scope::default(), &()).unwrap();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    pool.install(|| {
        let (lazy, kept) = allocated(|| VerifiedTree::lazy(tree(), &manifest, Some(outboard.source())).unwrap());
        let (file, opened) = allocated(|| lazy.open("weights").unwrap());
        let values = 32 * text.len() / GROUP;
        assert!(kept - text.len() < 4096, "{kept} bytes to make the tree");
        assert!(opened < values + GROUP + 4096, "{opened} bytes to open a file, of which {values} are values");
        let mut buf = vec![0; 3 << 20];
        for (offset, len, most) in [
            (0, 3 << 20, 0),
            (GROUP, GROUP, 0),
            (5 * GROUP, 0, 0),
            (5, 9, GROUP),
            (GROUP + 1, 8 * GROUP, 2 * GROUP),
            (1, 3 << 20, 2 * GROUP),
        ] {
            let buf = &mut buf[..len];
            let (read, bytes) = allocated(|| file.read_at(offset as u64, buf));
            read.unwrap();
            assert!(bytes <= most, "{bytes} bytes allocated to read {len} from {offset}, of {most}");
            assert!(buf == &text[offset..offset + len], "{len} bytes from {offset}");
        }
    });
}

/// What a command takes at its peak, all of a gibibyte going through it.
#[test]
fn peak_memory_does_not_grow_with_the_file() {
    const SIZE: u64 = 1 << 30;
    const MEASURE: &str = "import resource, subprocess, sys
status = subprocess.call(['sh', '-c', sys.argv[1], *sys.argv[2:]])
print(status, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)";
    let home = Home::new();
    let identity = XWingIdentity::generate().unwrap();
    identity.save(home.path("id.key")).unwrap();
    fs::File::create(home.path("data")).unwrap().set_len(SIZE).unwrap();
    let threads = std::thread::available_parallelism().unwrap().get() as u64;
    let limit = (64 + threads) << 10;
    let (program, dir) = (env!("CARGO_BIN_EXE_weightmark"), home.at(""));
    for line in [
        "encrypt data -r id.key.pub -o data.wmenc",
        "encrypt - -r id.key.pub -o - < data > /dev/null",
        "decrypt data.wmenc -i id.key -o out",
        "decrypt data.wmenc -i id.key -o - > /dev/null",
        "decrypt - -i id.key -o - < data.wmenc > /dev/null",
    ] {
        let started = std::time::Instant::now();
        let done = python(["-c", MEASURE, &format!("cd \"$1\" && exec \"$0\" {line}"), program, &dir]).ok();
        let figures: Vec<u64> = done.lines().last().unwrap().split(' ').map(|n| n.parse().unwrap()).collect();
        let [status, peak] = figures[..] else { panic!("{done}") };
        println!("{line}: {} MiB at most, of {}, in {:.1?}", peak >> 10, limit >> 10, started.elapsed());
        assert_eq!(status, 0, "{line}");
        assert!(peak < limit, "{line}: {peak} KiB, of {limit}");
    }
    assert_eq!(fs::metadata(home.path("out")).unwrap().len(), SIZE);
}

#[test]
fn opening_and_reading_a_part_reads_kilobytes() {
    let identity = XWingIdentity::generate().unwrap();
    let text = noise(2, 64 << 20);
    let sealed = Encryptor::to([identity.recipient()]).encrypt_bytes("m", &text).unwrap();
    let source = Counted { source: SliceAt::new(sealed), read: AtomicU64::new(0) };
    let reader = Reader::open(&source, &[&identity]).unwrap();
    let opening = source.read.swap(0, Ordering::Relaxed);
    assert!(opening < 64 << 10, "{opening} bytes to open");
    println!("opening reads {opening} bytes");
    for start in [0, 12_345, 32 << 20, (64 << 20) - (40 << 10)] {
        let end = start + (40 << 10);
        assert!(reader.read_span(start..end).unwrap() == text[start as usize..end as usize]);
        let read = source.read.swap(0, Ordering::Relaxed);
        let most = (end - start) + 2 * CHUNK;
        assert!(read <= most, "{read} bytes for {start}..{end}, of {most}");
    }
}

#[test]
fn many_threads_read_one_file_at_once() {
    fn read(reader: Reader<impl ReadAt>, text: &[u8]) {
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let reader = &reader;
                scope.spawn(move || {
                    let mut random = Random(thread);
                    for _ in 0..40 {
                        let mut place = || (random.uniform() * text.len() as f64) as usize;
                        let (a, b) = (place(), place());
                        let (start, end) = (a.min(b), a.max(b));
                        let bytes = reader.read_span(start as u64..end as u64).unwrap();
                        assert!(bytes == text[start..end], "{start}..{end}");
                    }
                });
            }
        });
    }
    let home = Home::new();
    let text = noise(3, 3_000_000);
    let identity = XWingIdentity::generate().unwrap();
    let sealed = Encryptor::to([identity.recipient()]).encrypt_bytes("m", &text).unwrap();
    let path = home.write("m.wmenc", &sealed);
    read(Reader::open(FileAt::open(&path).unwrap(), &[&identity]).unwrap(), &text);
    read(Reader::open(MmapAt::open(&path).unwrap(), &[&identity]).unwrap(), &text);
    read(Reader::open(SliceAt::new(sealed), &[&identity]).unwrap(), &text);
}

#[test]
fn what_a_file_claims_is_not_allocated() {
    const MOST: usize = 64 << 10;
    let home = Home::new();
    let identity = XWingIdentity::generate().unwrap();
    let identities: [&dyn Identity; 1] = [&identity];
    let claim = |magic: &[u8; 16], len: u32| {
        let mut block = [magic.as_slice(), &len.to_le_bytes()].concat();
        block.resize(4096, b' ');
        block
    };
    let cheaply = |what: &str, work: &dyn Fn() -> Result<()>| {
        let (refused, bytes) = allocated(work);
        println!("{what}: {bytes} bytes allocated");
        assert!(bytes < MOST, "{what}: {bytes} bytes allocated");
        match refused {
            Err(Error::Encryption { cause, .. }) => cause,
            other => panic!("{what}: {other:?}"),
        }
    };

    let file = claim(b"weightmark-enc-1", 16 << 20);
    let path = home.write("m.wmenc", &file);
    let opened = || Reader::open(FileAt::open(&path)?, &identities).map(drop);
    assert_eq!(cheaply("file", &opened), EncryptionError::Truncated);
    let streamed = || Decryptor::new(&identities).decrypt_stream(&*file, std::io::sink(), &());
    assert_eq!(cheaply("stream", &streamed), EncryptionError::Truncated);
    let beyond = claim(b"weightmark-enc-1", (16 << 20) + 1);
    let opened = || Reader::open(SliceAt::new(&beyond), &identities).map(drop);
    assert!(matches!(cheaply("over the limit", &opened), EncryptionError::BadEnvelope(_)));

    let blocks = claim(b"weightmark-key-1", 16 << 20).repeat(256);
    home.write("sealed/weightmark.keys", &blocks);
    let opened = || Decryptor::new(&identities).open(home.path("sealed")).map(drop);
    assert_eq!(cheaply("directory", &opened), EncryptionError::Truncated);
    let inspected = || inspect(&SliceAt::new(&blocks)).map(drop);
    assert_eq!(cheaply("inspection", &inspected), EncryptionError::Truncated);
}

#[test]
fn a_statement_that_nobody_has_verified_costs_no_more_than_its_size() {
    let key = weightmark::keys::SigningKey::generate(weightmark::keys::Algorithm::Ed25519).unwrap();
    let predicate = format!("[{}[]]", "[],".repeat(1 << 20)); // each of which a tree of values would hold
    let statement = format!(
        r#"{{"_type":"https://in-toto.io/Statement/v1","subject":[],"predicateType":"x","predicate":{{"a":{predicate}}}}}"#
    );
    let bundle = weightmark::signing::Bundle::parse(super::signing::bundle(&key, &statement).as_bytes()).unwrap();
    let (claims, asked) = allocated(|| bundle.claims());
    assert!(claims.contains("unknown predicate"), "{claims}");
    assert!(asked < 4 * statement.len(), "{asked} bytes for {}", statement.len());
}
