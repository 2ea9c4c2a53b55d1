//! A number of the owner's choice in place of a copy's word: 64 bits and a checksum, repeated over all positions.
//!
//! A payload is a message, not a proof: whoever chose it may have chosen it after the fact. Ownership is proved by the
//! owner mark, and what the payload of one's own mark says is then read for what it is.

use super::fingerprint::CODE_LEN;
use super::statistics::normal_tail;

/// Bits of the payload, then of its checksum; position `j` of the code carries bit `j mod 80`.
const BITS: usize = 80;
/// The weakest bits that may be turned over for the checksum to agree. All `2^6` readings together agree by chance with
/// probability `2^6 / 2^16`: bits that are not there are read as independent fair coins, since the chips are.
const TURNED: usize = 6;

/// What a suspect's copy mark says when it is read as a payload.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct PayloadEvidence {
    /// The payload, if its checksum agrees. By chance it does in one of 1024 suspects without any.
    pub payload: Option<u64>,
    /// How many of the weakest six bits had to be turned over for that.
    pub turned: usize,
    /// For each bit, those of the checksum last, how clearly it is read: in standard deviations, positive for 1.
    pub values: Vec<f64>,
}

impl PayloadEvidence {
    /// Reads signal and variance at each position.
    pub(super) fn read(copy: &[(f64, f64)]) -> Self {
        let mut sums = [(0.0, 0.0); BITS];
        for ((signal, variance), bit) in copy.iter().zip((0..BITS).cycle()) {
            sums[bit].0 += signal;
            sums[bit].1 += variance;
        }
        let z = |(signal, variance): (f64, f64)| if variance > 0.0 { signal / variance.sqrt() } else { 0.0 };
        let values = sums.map(z);
        let found = values.iter().any(|z| *z != 0.0).then(|| decode(&values)).flatten();
        let (payload, turned) = found.map_or((None, 0), |(payload, turned)| (Some(payload), turned));
        Self { payload, turned, values: values.to_vec() }
    }

    /// How clearly bits are read: the mean of the squares of their values.
    pub(super) fn clearness(&self) -> f64 {
        self.values.iter().map(|z| z * z).sum::<f64>() / self.values.len().max(1) as f64
    }

    /// How clearly the weakest bit is read, in standard deviations.
    pub fn weakest(&self) -> f64 {
        self.values.iter().map(|z| z.abs()).fold(f64::INFINITY, f64::min)
    }

    /// The share of bits that is expected to be read wrongly, before any is turned over: the tail of the normal
    /// distribution beyond the mean clearness.
    pub fn expected_error_rate(&self) -> f64 {
        normal_tail((self.clearness() - 1.0).max(0.0).sqrt())
    }

    /// How many of the 80 bits are read otherwise than `payload` and its checksum have them, before any is turned over.
    pub fn bit_errors(&self, payload: u64) -> usize {
        self.values.iter().zip(bits(codeword(payload))).filter(|(z, bit)| (**z > 0.0) != *bit).count()
    }
}

/// The word that carries a payload: a bit for each position of the code.
pub(super) fn payload_word(payload: u64) -> Vec<bool> {
    let bits: Vec<bool> = bits(codeword(payload)).collect();
    bits.into_iter().cycle().take(CODE_LEN).collect()
}

/// The payload whose checksum agrees if some of the weakest bits are turned over, and how many: of several the one
/// that turns the least clearness over.
fn decode(values: &[f64; BITS]) -> Option<(u64, usize)> {
    let read = values.iter().fold(0, |word, z| word << 1 | u128::from(*z > 0.0));
    let mut order: Vec<usize> = (0..BITS).collect();
    order.sort_by(|a, b| values[*a].abs().total_cmp(&values[*b].abs())); // stable: ties by number
    let weakest = &order[..TURNED];
    let mut readings: Vec<(f64, u128, usize)> = Vec::new();
    for pattern in 0u32..1 << TURNED {
        let turned = weakest.iter().enumerate().filter(|(i, _)| pattern >> i & 1 == 1).map(|(_, bit)| *bit);
        let (cost, word) =
            turned.fold((0.0, read), |(cost, word), bit| (cost + values[bit].abs(), word ^ 1 << (BITS - 1 - bit)));
        readings.push((cost, word, pattern.count_ones() as usize));
    }
    readings.sort_by(|a, b| a.0.total_cmp(&b.0));
    let agrees = |word: u128| codeword((word >> 16) as u64) == word;
    readings.into_iter().find(|(_, word, _)| agrees(*word)).map(|(_, word, turned)| ((word >> 16) as u64, turned))
}

/// The payload followed by its checksum, in the lower 80 bits.
fn codeword(payload: u64) -> u128 {
    u128::from(payload) << 16 | u128::from(crc16(&payload.to_be_bytes()))
}

/// The lower 80 bits, highest first.
fn bits(word: u128) -> impl Iterator<Item = bool> {
    (0..BITS).rev().map(move |i| word >> i & 1 == 1)
}

/// CRC-16/IBM-3740 (also called CCITT-FALSE; catalogue of parametrised CRC algorithms, Cook): polynomial 0x1021, from
/// 0xffff, nothing reflected. Words of 80 bits differ from each other in four bits at least.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0xffff, |crc: u16, byte| {
        (0..8).fold(crc ^ u16::from(*byte) << 8, |crc, _| crc << 1 ^ if crc & 0x8000 == 0 { 0 } else { 0x1021 })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watermark::keystream::Key;

    /// Positions that say `payload`, each clearly by `z` of its own standard deviations, but for the bits `wrong`.
    fn positions(payload: u64, z: f64, wrong: &[usize]) -> Vec<(f64, f64)> {
        let sign = |(j, bit): (usize, bool)| {
            let strength = if wrong.contains(&(j % BITS)) { -z / 10.0 } else { z };
            (if bit { strength } else { -strength }, 1.0)
        };
        payload_word(payload).into_iter().enumerate().map(sign).collect()
    }

    #[test]
    fn the_checksum_is_the_catalogued_one() {
        assert_eq!(crc16(b"123456789"), 0x29b1);
        assert_eq!(crc16(b""), 0xffff);
    }

    #[test]
    fn payloads_come_back() {
        for payload in [0, 1, u64::MAX, 0x0123_4567_89ab_cdef] {
            let read = PayloadEvidence::read(&positions(payload, 1.0, &[]));
            assert_eq!((read.payload, read.turned, read.bit_errors(payload)), (Some(payload), 0, 0));
            assert!(read.weakest() > 28.0 && read.expected_error_rate() < 1e-100);
        }
    }

    #[test]
    fn a_few_weak_bits_are_turned_over_and_counted() {
        let payload = 0xfeed_face_0bad_cafe;
        let read = PayloadEvidence::read(&positions(payload, 1.0, &[3, 79]));
        assert_eq!((read.payload, read.turned, read.bit_errors(payload)), (Some(payload), 2, 2));
        let read = PayloadEvidence::read(&positions(payload, 1.0, &[1, 2, 3, 4, 5, 6, 7, 8]));
        assert_eq!((read.payload, read.bit_errors(payload)), (None, 8));
    }

    #[test]
    fn noise_is_accepted_no_more_often_than_promised() {
        let noise = Key::new([7; 32]).uniforms("noise", 20_000 * BITS);
        let accepted = noise.chunks(BITS).filter(|values| {
            let values: Vec<_> = values.iter().map(|u| (u - 0.5, 1.0)).collect();
            PayloadEvidence::read(&values).payload.is_some()
        });
        let accepted = accepted.count();
        assert!((5..=40).contains(&accepted), "{accepted}"); // 20,000 / 1024 is 19.5
    }

    #[test]
    fn where_nothing_is_nothing_is_read() {
        for copy in [vec![], vec![(0.0, 0.0); CODE_LEN], vec![(0.0, 1.0); CODE_LEN]] {
            let read = PayloadEvidence::read(&copy);
            assert_eq!((read.payload, read.weakest(), read.expected_error_rate()), (None, 0.0, 0.5));
        }
    }
}
