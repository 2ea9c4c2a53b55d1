//! Payloads through streams, front to back: reading ahead on one thread, chunks on all others.

use std::io::{self, Read, Write};
use std::sync::mpsc::sync_channel;

use rayon::prelude::*;

use crate::crypto::aead::TAG;
use crate::crypto::cobblestone::{CHUNK, HEADER, MAX_CHUNKS, MessageKey, RECORD};
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
    mut output: impl Write,
    progress: &dyn Progress,
) -> Result<u64> {
    let (message, header) = MessageKey::begin(key.expose(), context)?;
    output.write_all(&header).map_err(write_error)?;
    let mut size = 0;
    let work = |first: u64, records: &mut [u8]| {
        records.par_chunks_mut(RECORD).with_min_len(SHARE).enumerate().for_each(|(i, record)| {
            let (chunk, tag) = record.split_at_mut(record.len() - TAG);
            tag.copy_from_slice(&message.seal(first + i as u64, chunk));
        });
        output.write_all(records).map_err(write_error)?;
        let plain = (records.len() - TAG * records.len().div_ceil(RECORD)) as u64;
        size += plain;
        step(progress, plain)
    };
    pipeline(input, work, |input, records| {
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
    mut output: impl Write,
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
    let work = |first: u64, records: &mut [u8]| {
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
    pipeline(input, work, |input, records| {
        let filled = fill(input, records)?;
        Ok((filled, filled < records.len()))
    })?;
    output.flush().map_err(write_error)
}

/// Pulls parts of up to [`PART`] records from `input`, on a thread of its own and one ahead of what is worked on, until
/// one is the last. `pull` says how many bytes it has filled and whether that was all.
fn pipeline<R: Read + Send>(
    mut input: R,
    mut work: impl FnMut(u64, &mut [u8]) -> Result<()>,
    pull: impl Fn(&mut R, &mut [u8]) -> Result<(usize, bool)> + Send,
) -> Result<()> {
    let (to_work, pulled) = sync_channel::<Result<(Vec<u8>, usize, bool)>>(1);
    let (to_pull, empty) = sync_channel::<Vec<u8>>(2);
    std::thread::scope(move |scope| {
        scope.spawn(move || {
            // ends with the last part, or when the worker hangs up
            while let Ok(mut buffer) = empty.recv() {
                let pulled = pull(&mut input, &mut buffer);
                let more = pulled.as_ref().is_ok_and(|(_, is_last)| !is_last);
                if to_work.send(pulled.map(|(filled, is_last)| (buffer, filled, is_last))).is_err() || !more {
                    break;
                }
            }
        });
        for _ in 0..2 {
            let _ = to_pull.send(vec![0; PART * RECORD]); // nobody has hung up yet
        }
        for first in (0..MAX_CHUNKS).step_by(PART) {
            let Ok(part) = pulled.recv() else { break };
            let (mut buffer, filled, is_last) = part?;
            work(first, &mut buffer[..filled])?;
            if is_last {
                return Ok(());
            }
            let _ = to_pull.send(buffer); // if the reader has gone, the next `recv` says so
        }
        Err(EncryptionError::BadEnvelope("over 4 PiB".into()).on(INPUT))
    })
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
