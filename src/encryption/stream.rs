//! Payloads through streams, front to back: reading ahead on one thread, chunks on all others.

use std::io::{self, Read, Write};

use rayon::prelude::*;

use crate::crypto::aead::TAG;
use crate::crypto::cobblestone::{CHUNK, HEADER, MessageKey, RECORD};
use crate::error::{Cause, EncryptionError, Error, Result};
use crate::io::progress::{Progress, step};
use crate::keys::InputKey;

/// What messages call a stream that is read, and one that is written.
pub(super) const INPUT: &str = "input stream";
const OUTPUT: &str = "output stream";

/// Records worked on at a time, by all threads: 4 MiB.
const PART: usize = 256;
/// Records that one thread takes.
const SHARE: usize = 16;

/// Encrypts all that `input` has to give. Returns the size of the plaintext.
pub(super) fn seal(
    key: &InputKey,
    context: &[u8],
    input: impl Read + Send,
    mut output: impl Write + Send,
    progress: &dyn Progress,
) -> Result<u64> {
    let (message, header) = MessageKey::begin(key.expose(), context)?;
    output.write_all(&header).map_err(write_error)?;
    let mut size = 0;
    let mut work = |first: u64, records: &mut [u8]| {
        records.par_chunks_mut(RECORD).with_min_len(SHARE).enumerate().for_each(|(i, record)| {
            let (chunk, tag) = record.split_at_mut(record.len() - TAG);
            tag.copy_from_slice(&message.seal(first + i as u64, chunk));
        });
        output.write_all(records).map_err(write_error)?;
        let plain = (records.len() - TAG * records.len().div_ceil(RECORD)) as u64;
        size += plain;
        step(progress, plain)
    };
    pipeline(input, &mut work, |input, records| {
        let mut filled = 0;
        for record in records.chunks_exact_mut(RECORD) {
            let read = fill(input, &mut record[..CHUNK])?;
            filled += read + TAG;
            if read < CHUNK {
                return Ok((filled, true));
            }
        }
        Ok((filled, false))
    })?;
    output.flush().map_err(write_error)?;
    Ok(size)
}

/// Decrypts the payload that `input` is at. Chunks are released in order, each after it was authenticated.
pub(super) fn open(
    key: &InputKey,
    context: &[u8],
    mut input: impl Read + Send,
    mut output: impl Write + Send,
    progress: &dyn Progress,
) -> Result<()> {
    let fail = |cause: EncryptionError| cause.on(INPUT);
    let mut header = [0; HEADER];
    if fill(&mut input, &mut header)? < HEADER {
        return Err(fail(EncryptionError::Truncated));
    }
    let message = MessageKey::resume(key.expose(), &header, context)?;
    let message = message.ok_or_else(|| fail(EncryptionError::Commitment))?;
    let mut plain = Vec::with_capacity(PART * CHUNK);
    let mut work = |first: u64, records: &mut [u8]| {
        let opened = records.par_chunks_mut(RECORD).with_min_len(SHARE).enumerate().map(|(i, record)| {
            let index = first + i as u64;
            let (chunk, tag) = record.split_last_chunk_mut::<TAG>().ok_or(EncryptionError::Truncated)?;
            message.open(index, chunk, *tag).map_err(|_| EncryptionError::ChunkTampered { index })
        });
        let opened: Vec<_> = opened.collect();
        let good = opened.iter().take_while(|opened| opened.is_ok()).count();
        plain.clear();
        for record in records.chunks(RECORD).take(good) {
            plain.extend_from_slice(&record[..record.len() - TAG]);
        }
        output.write_all(&plain).map_err(write_error)?;
        opened.into_iter().collect::<Result<(), _>>().map_err(fail)?;
        // a stream that ends with a whole record has lost its last one
        if !records.len().is_multiple_of(RECORD) || records.len() == PART * RECORD {
            step(progress, plain.len() as u64)
        } else {
            Err(fail(EncryptionError::Truncated))
        }
    };
    pipeline(input, &mut work, |input, records| {
        let filled = fill(input, records)?;
        Ok((filled, filled < records.len()))
    })?;
    output.flush().map_err(write_error)
}

/// Pulls parts of up to [`PART`] records from `input`, each while the one before is worked on, until one is the last.
/// `pull` says how many bytes it has filled and whether that was all.
fn pipeline<R: Read + Send>(
    mut input: R,
    work: &mut (impl FnMut(u64, &mut [u8]) -> Result<()> + Send),
    pull: impl Fn(&mut R, &mut [u8]) -> Result<(usize, bool)> + Sync,
) -> Result<()> {
    let (mut current, mut next) = (vec![0; PART * RECORD], vec![0; PART * RECORD]);
    let (mut filled, mut is_last) = pull(&mut input, &mut current)?;
    let mut first = 0;
    while !is_last {
        let (worked, ahead) = rayon::join(|| work(first, &mut current[..filled]), || pull(&mut input, &mut next));
        worked?;
        (filled, is_last) = ahead?;
        std::mem::swap(&mut current, &mut next);
        first += PART as u64;
    }
    work(first, &mut current[..filled])
}

/// Reads until `buf` is full or the stream ends, and returns how much that was.
pub(super) fn fill(input: &mut impl Read, buf: &mut [u8]) -> Result<usize> {
    let mut filled = 0;
    while filled < buf.len() {
        match input.read(&mut buf[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(read_error(e)),
        }
    }
    Ok(filled)
}

pub(super) fn read_error(error: io::Error) -> Error {
    Error::io("read", INPUT, error)
}

pub(super) fn write_error(error: io::Error) -> Error {
    Error::io("write", OUTPUT, error)
}
