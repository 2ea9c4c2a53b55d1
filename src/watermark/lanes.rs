//! Eight numbers at a time, in the order that the specification fixes. The compiler turns each of these into one instruction
//! where the processor has it (`pulp` chooses at run time); nothing is fused or reordered, so results are the same without.

/// Numbers that are worked on together; weight `i` of a row or a run goes to lane `i mod 8`.
pub(super) const LANES: usize = 8;
/// Weights whose sums are kept in `f32` before they are added up in `f64`.
const CHUNK: usize = 512;

pub(super) type F = [f32; LANES];

/// A function whose code is made for each kind of vector units, and chosen at run time. All that it calls must be
/// `inline(always)`, and no closure, or it is code for none.
macro_rules! vectorised {
    ($(#[$doc:meta])* $vis:vis fn $name:ident($($arg:ident: $type:ty),*) -> $out:ty $body:block) => {
        $(#[$doc])*
        $vis fn $name<'a>($($arg: $type),*) -> $out {
            struct Call<'a> {
                $($arg: $type),*
            }
            impl<'a> pulp::NullaryFnOnce for Call<'a> {
                type Output = $out;

                #[inline(always)]
                fn call(self) -> $out {
                    let Self { $($arg),* } = self;
                    $body
                }
            }
            pulp::Arch::new().dispatch(Call { $($arg),* })
        }
    };
}
pub(super) use vectorised;

#[inline(always)]
pub(super) fn splat(value: f32) -> F {
    [value; LANES]
}

/// A function of lanes that does the same in each of them. Loops, since closures would not be sure to be inlined.
macro_rules! lanewise {
    ($($(#[$doc:meta])* $name:ident($($arg:ident: $type:ty),*), $lane:ident -> $value:expr;)*) => {$(
        $(#[$doc])*
        #[inline(always)]
        pub(super) fn $name($($arg: $type),*) -> F {
            let mut out = [0.0; LANES];
            for $lane in 0..LANES {
                out[$lane] = $value;
            }
            out
        }
    )*};
}

lanewise! {
    add(a: F, b: F), i -> a[i] + b[i];
    subtract(a: F, b: F), i -> a[i] - b[i];
    times(a: F, b: F), i -> a[i] * b[i];
    /// `a` where `x` is not zero, and `b` where it is.
    where_not_zero(x: F, a: F, b: F), i -> if x[i] == 0.0 { b[i] } else { a[i] };
}

/// Weights of a run.
pub(super) type R = [f32; 64];

/// For each byte of signs, the sign bits of eight numbers that are negated where a bit is not set.
static SIGN_BITS: [[u32; LANES]; 256] = {
    let mut table = [[0; LANES]; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut lane = 0;
        while lane < LANES {
            table[byte][lane] = if byte >> lane & 1 == 1 { 0 } else { 1 << 31 };
            lane += 1;
        }
        byte += 1;
    }
    table
};

/// The sign bits of a run.
#[inline(always)]
pub(super) fn sign_bits(signs: u64) -> [u32; 64] {
    let mut bits = [0; 64];
    for i in 0..8 {
        let byte = SIGN_BITS[(signs >> (8 * i)) as u8 as usize];
        for lane in 0..LANES {
            bits[8 * i + lane] = byte[lane];
        }
    }
    bits
}

/// The sum of a run, weight `i` in lane `i mod 8`.
#[inline(always)]
pub(super) fn sum(values: &R) -> f32 {
    let mut lanes = [0.0; LANES];
    for chunk in values.as_chunks().0 {
        lanes = add(lanes, *chunk);
    }
    join(lanes)
}

/// The sum of the lanes.
#[inline(always)]
pub(super) fn join<T: std::ops::Add<Output = T>>([a, b, c, d, e, f, g, h]: [T; LANES]) -> T {
    ((a + b) + (c + d)) + ((e + f) + (g + h))
}

/// Up to eight numbers, the rest zero.
#[inline(always)]
pub(super) fn padded(values: &[f32]) -> F {
    let mut out = splat(0.0);
    for (out, value) in out.iter_mut().zip(values) {
        *out = *value;
    }
    out
}

/// What is summed over two rows: zero where both rows are.
pub(super) trait Terms<const N: usize> {
    /// Of eight places. To be inlined.
    fn of(x: F, w: F) -> [F; N];
}

/// `N` sums over two rows of the same length.
#[inline(always)]
pub(super) fn sums<T: Terms<N>, const N: usize>(x: &[f32], w: &[f32]) -> [f64; N] {
    let mut totals = [0.0; N];
    for (x, w) in x.chunks(CHUNK).zip(w.chunks(CHUNK)) {
        let mut lanes = [[0.0; LANES]; N];
        let ((x, x_rest), (w, w_rest)) = (x.as_chunks(), w.as_chunks());
        for (x, w) in x.iter().zip(w) {
            let terms = T::of(*x, *w);
            for n in 0..N {
                lanes[n] = add(lanes[n], terms[n]);
            }
        }
        if !x_rest.is_empty() {
            let terms = T::of(padded(x_rest), padded(w_rest));
            for n in 0..N {
                lanes[n] = add(lanes[n], terms[n]);
            }
        }
        for n in 0..N {
            totals[n] += f64::from(join(lanes[n]));
        }
    }
    totals
}

/// Between `-limit` and `limit`; what is not a number becomes one of them.
#[inline(always)]
pub(super) fn clip(value: f32, limit: f32) -> f32 {
    let below = if value < limit { value } else { limit };
    if below > -limit { below } else { -limit }
}
