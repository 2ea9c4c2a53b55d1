//! Numbers of one byte and less: floating point of 8 and 4 bits, and integers of 4.

/// A floating-point type of at most 7 bits beside its sign.
struct Narrow {
    mantissa: u32,
    bias: u64,
}

const E4M3: Narrow = Narrow { mantissa: 3, bias: 7 };
const E5M2: Narrow = Narrow { mantissa: 2, bias: 15 };
const E4M3FNUZ: Narrow = Narrow { mantissa: 3, bias: 8 };
const E5M2FNUZ: Narrow = Narrow { mantissa: 2, bias: 16 };
const E2M1: Narrow = Narrow { mantissa: 1, bias: 1 };

impl Narrow {
    /// Exponent and mantissa moved to where `f64` has them are the number but for the bias, subnormals included.
    fn magnitude(&self, bits: u8) -> f64 {
        f64::from_bits(u64::from(bits & 0x7f) << (52 - self.mantissa)) * self.unbias()
    }

    fn unbias(&self) -> f64 {
        f64::from_bits((2046 - self.bias) << 52)
    }
}

pub(super) fn f8_e4m3([bits]: [u8; 1]) -> f64 {
    finite(&E4M3, bits, bits & 0x7f == 0x7f)
}

pub(super) fn f8_e5m2([bits]: [u8; 1]) -> f64 {
    match bits & 0x7f {
        0x7c => f64::INFINITY.copysign(f64::from(bits as i8)),
        rest => finite(&E5M2, bits, rest > 0x7c),
    }
}

pub(super) fn f8_e4m3fnuz([bits]: [u8; 1]) -> f64 {
    finite(&E4M3FNUZ, bits, bits == 0x80)
}

pub(super) fn f8_e5m2fnuz([bits]: [u8; 1]) -> f64 {
    finite(&E5M2FNUZ, bits, bits == 0x80)
}

/// A power of two.
pub(super) fn f8_e8m0([bits]: [u8; 1]) -> f64 {
    if bits == 0xff { f64::NAN } else { f64::from_bits((u64::from(bits) + 1023 - 127) << 52) }
}

pub(super) fn f4(byte: u8) -> [f64; 2] {
    [byte & 15, byte >> 4].map(|bits| finite(&E2M1, bits << 4 & 0x80 | bits & 7, false))
}

pub(super) fn i4(byte: u8) -> [f64; 2] {
    [byte << 4, byte].map(|bits| f64::from(bits as i8 >> 4))
}

pub(super) fn u4(byte: u8) -> [f64; 2] {
    [byte & 15, byte >> 4].map(f64::from)
}

pub(super) fn i2(byte: u8) -> [f64; 4] {
    [byte << 6, byte << 4, byte << 2, byte].map(|bits| f64::from(bits as i8 >> 6))
}

pub(super) fn u2(byte: u8) -> [f64; 4] {
    [byte, byte >> 2, byte >> 4, byte >> 6].map(|bits| f64::from(bits & 3))
}

fn finite(of: &Narrow, bits: u8, nan: bool) -> f64 {
    if nan { f64::NAN } else { of.magnitude(bits).copysign(f64::from(bits as i8)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The number by the formula of the OCP specification.
    fn formula(bits: u8, mantissa: i32, bias: i32) -> f64 {
        let (exponent, fraction) = (i32::from(bits & 0x7f) >> mantissa, i32::from(bits) & ((1 << mantissa) - 1));
        let fraction = f64::from(fraction) / f64::from(1 << mantissa);
        let magnitude =
            if exponent == 0 { fraction * 2f64.powi(1 - bias) } else { (1.0 + fraction) * 2f64.powi(exponent - bias) };
        if bits >= 0x80 { -magnitude } else { magnitude }
    }

    #[test]
    fn all_codes_are_the_numbers_of_the_specification() {
        for bits in 0..=255 {
            let check = |value: f64, expected: f64| {
                assert!(value.to_bits() == expected.to_bits() || value.is_nan() && expected.is_nan(), "{bits:#x}");
            };
            let magnitude = bits & 0x7f;
            check(f8_e4m3([bits]), if magnitude == 0x7f { f64::NAN } else { formula(bits, 3, 7) });
            check(f8_e5m2([bits]), half::f16::from_bits(u16::from(bits) << 8).to_f64());
            check(f8_e4m3fnuz([bits]), if bits == 0x80 { f64::NAN } else { formula(bits, 3, 8) });
            check(f8_e5m2fnuz([bits]), if bits == 0x80 { f64::NAN } else { formula(bits, 2, 16) });
            check(f8_e8m0([bits]), if bits == 0xff { f64::NAN } else { 2f64.powi(i32::from(bits) - 127) });
        }
        assert_eq!(std::array::from_fn(|i| f4(i as u8 | 0x80)[0]), [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]);
        assert_eq!(f4(0xf1), [0.5, -6.0]);
        assert_eq!((i4(0x7f), i4(0x80), u4(0x8f)), ([-1.0, 7.0], [0.0, -8.0], [15.0, 8.0]));
        assert_eq!((i2(0b10_01_00_11), u2(0b10_01_00_11)), ([-1.0, 0.0, 1.0, -2.0], [3.0, 0.0, 1.0, 2.0]));
    }
}
