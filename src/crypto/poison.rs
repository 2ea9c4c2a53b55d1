//! Constant time, checked: under valgrind, secrets are marked as undefined, and memcheck reports every branch and every
//! address that depends on one. `tests/run` runs these tests so; elsewhere they have nothing to say.
#![allow(unsafe_code)]

use std::hint::black_box;

use super::cobblestone::MessageKey;
use super::*;

/// Asks valgrind something, as `valgrind.h` and `memcheck.h` do; 0 elsewhere.
fn request(code: usize, bytes: &mut [u8]) -> usize {
    let arguments = [code, bytes.as_mut_ptr().expose_provenance(), bytes.len(), 0, 0, 0];
    let answer: usize;
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the rotations add up to nothing and the exchange is one with itself, so a processor does nothing here but
    // change flags; valgrind knows the sequence, reads the arguments, and puts its answer into rdx.
    unsafe {
        std::arch::asm!(
            "rol rdi, 3",
            "rol rdi, 13",
            "rol rdi, 61",
            "rol rdi, 51",
            "xchg rbx, rbx",
            in("rax") arguments.as_ptr(),
            inout("rdx") 0usize => answer,
        )
    };
    #[cfg(not(target_arch = "x86_64"))]
    {
        answer = 0 * arguments[0];
    }
    answer
}

const RUNNING: usize = 0x1001;
const ERRORS: usize = 0x1201;
const MAKE_UNDEFINED: usize = 0x4d43_0001;
const MAKE_DEFINED: usize = 0x4d43_0002;

/// What memcheck has to say of `work`, which is handed a secret; `None` without valgrind.
fn complaints(secret: &mut [u8], work: impl FnOnce(&mut [u8])) -> Option<usize> {
    if request(RUNNING, &mut []) == 0 {
        assert!(std::env::var_os("WEIGHTMARK_VALGRIND").is_none(), "not under valgrind");
        return None;
    }
    request(MAKE_UNDEFINED, secret);
    let before = request(ERRORS, &mut []);
    work(secret);
    let after = request(ERRORS, &mut []);
    request(MAKE_DEFINED, secret);
    Some(after - before)
}

/// Makes a result public, which may then be branched on.
fn publish<const N: usize>(mut result: [u8; N]) -> [u8; N] {
    request(MAKE_DEFINED, &mut result);
    result
}

#[test]
fn a_branch_on_a_secret_is_seen() {
    let mut secret = [7; 32];
    let seen = complaints(&mut secret, |secret| {
        if black_box(secret[3]) == 8 {
            black_box(secret[4]);
        }
    });
    assert!(seen.is_none_or(|seen| seen > 0), "this check sees nothing");
}

#[test]
fn comparisons_take_no_branch() {
    let mut secret = [7; 32];
    for other in [[7; 32], [0; 32]] {
        let seen = complaints(&mut secret, |secret| {
            let verdict = publish([u8::from(equal(secret, &other))]);
            assert_eq!(verdict[0] == 1, other == [7; 32]);
        });
        assert_eq!(seen.unwrap_or(0), 0);
    }
}

#[test]
fn keys_are_derived_and_messages_sealed_without_a_branch() {
    let mut secret = [7; 32];
    let seen = complaints(&mut secret, |secret| {
        let key: &[u8; 32] = (&*secret).try_into().unwrap();
        publish(*hkdf_sha256::<16>(key, label::KEY_ID));
        publish(hmac_sha256(key, &[b"a", b"message"]));
        let (message, _) = MessageKey::begin(key, b"context").unwrap();
        let mut chunk = *b"the plaintext of some chunk, longer than a block";
        request(MAKE_UNDEFINED, &mut chunk);
        publish(message.seal(0, &mut chunk));
        publish(chunk);
    });
    assert_eq!(seen.unwrap_or(0), 0);
}
