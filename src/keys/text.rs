//! Key texts: bech32m (BIP 350) with a prefix that names the kind of key, without BIP 173's limit on length.

use bech32::primitives::decode::CheckedHrpstring;
use bech32::{Bech32m, Checksum, Hrp};
use zeroize::Zeroizing;

use crate::error::KeyError;

/// Bech32m for texts of up to 4096 characters. The checksum still catches every typing error of a few letters;
/// only the proven count of errors found in *any* place is lost beyond 1023.
enum LongBech32m {}

impl Checksum for LongBech32m {
    type MidstateRepr = <Bech32m as Checksum>::MidstateRepr;
    type CorrectionField = <Bech32m as Checksum>::CorrectionField;
    const ROOT_GENERATOR: Self::CorrectionField = Bech32m::ROOT_GENERATOR;
    const ROOT_EXPONENTS: core::ops::RangeInclusive<usize> = Bech32m::ROOT_EXPONENTS;
    const CODE_LENGTH: usize = 4096;
    const CHECKSUM_LENGTH: usize = Bech32m::CHECKSUM_LENGTH;
    const GENERATOR_SH: [u32; 5] = Bech32m::GENERATOR_SH;
    const TARGET_RESIDUE: u32 = Bech32m::TARGET_RESIDUE;
}

/// `bytes` as text under `prefix`. Panics in debug builds if they are too long; the callers' are not.
pub(super) fn encode(prefix: &str, bytes: &[u8]) -> Zeroizing<String> {
    let text = Hrp::parse(prefix).ok().and_then(|hrp| bech32::encode_lower::<LongBech32m>(hrp, bytes).ok());
    debug_assert!(text.is_some(), "prefix and length are constants within the limits");
    Zeroizing::new(text.unwrap_or_default())
}

/// The bytes of a text that must have `prefix`; `wanted` names the kind of key in errors.
pub(super) fn decode(prefix: &str, wanted: &'static str, text: &str) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let malformed = |problem: &str| KeyError::Malformed { wanted, problem: problem.into() };
    let checked = CheckedHrpstring::new::<LongBech32m>(text).map_err(|_| malformed("no key text, or mistyped"))?;
    if checked.hrp().to_lowercase() != prefix {
        return Err(malformed("it is another kind of key"));
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(text.len())); // more than enough: no copy stays behind
    bytes.extend(checked.byte_iter());
    // a key has one text: no bits behind its last byte
    let canonical = Zeroizing::new(text.to_lowercase());
    if *encode(prefix, &bytes) != *canonical {
        return Err(malformed("bits are left over"));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_checked_and_kinds_kept_apart() {
        let text = encode("wmtest", &[7; 1216]);
        assert_eq!(decode("wmtest", "test", &text).unwrap().as_slice(), [7; 1216]);
        assert!(decode("wmother", "test", &text).is_err());
        for i in 0..text.len() {
            let mut typo = text.as_bytes().to_vec();
            typo[i] = if typo[i] == b'q' { b'p' } else { b'q' };
            assert!(decode("wmtest", "test", std::str::from_utf8(&typo).unwrap()).is_err(), "{i}");
        }
        assert!(decode("wmtest", "test", &text[..text.len() - 1]).is_err());
    }
}
