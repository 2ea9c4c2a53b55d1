//! A sequence of calls of the C interface over handles of any kind, live, freed or never made: each comes back with a code, an
//! error comes with every code but one, and all that was opened can be freed.
//!
//! The first half of the input, up to 64 bytes, says which calls; the rest is the file that they read.
#![no_main]

use std::ffi::{c_int, c_void};
use std::ptr::{null_mut, without_provenance_mut};

use libfuzzer_sys::fuzz_target;
use weightmark::ffi::*;

unsafe extern "C-unwind" fn read_at(context: *mut c_void, offset: u64, buffer: *mut c_void, len: usize) -> c_int {
    // SAFETY: the context is the file, and reads stay inside of it
    unsafe {
        let file = &*context.cast::<&[u8]>();
        let bytes = &file[offset as usize..][..len];
        buffer.cast::<u8>().copy_from_nonoverlapping(bytes.as_ptr(), len);
    }
    c_int::from(len > 4000 && len % 251 == 0) // some storage fails now and then
}

fuzz_target!(|input: &[u8]| {
    let (calls, file) = input.split_at((input.len() / 2).min(64));
    let context = (&raw const file).cast_mut().cast::<c_void>();
    let mut handles: Vec<*mut c_void> =
        vec![null_mut(), without_provenance_mut(16), without_provenance_mut(usize::MAX)];
    let mut buffer = vec![0u8; 1 << 16];
    for call in calls.chunks_exact(4) {
        let pick = |i: u8| handles[usize::from(i) % handles.len()];
        let (first, second, len) = (pick(call[1]), pick(call[2]), usize::from(call[3]) * 17);
        let (mut error, mut made, out) = (null_mut(), null_mut::<c_void>(), buffer.as_mut_ptr());
        let mut tensor = wm_tensor::default();
        // SAFETY: texts end in NUL, memory is of the length given, and handles may be anything
        let code = unsafe {
            let new = &raw mut made;
            match call[0] % 18 {
                0 => wm_options_new(new.cast(), &mut error),
                1 => wm_options_context(first.cast(), c"fuzz".as_ptr(), &mut error),
                2 => wm_options_danger_accept_unsigned(first.cast(), &mut error),
                3 => wm_options_danger_allow_code(first.cast(), c"m".as_ptr(), &mut error),
                4 => wm_sources_new(c"m".as_ptr(), new.cast(), &mut error),
                5 => {
                    let size = file.len() as u64;
                    wm_sources_add(first.cast(), c"m".as_ptr(), size, Some(read_at), context, None, &mut error)
                }
                6 => {
                    let (path, size) = (c"m".as_ptr(), file.len() as u64);
                    wm_sources_lone(path, size, Some(read_at), context, None, new.cast(), &mut error)
                }
                7 | 8 => wm_model_open_sources(first.cast(), second.cast(), new.cast(), &mut error),
                9 => wm_model_tensor(first.cast(), len / 17, &mut tensor, &mut error),
                10 => wm_file_open(first.cast(), c"m".as_ptr(), new.cast(), &mut error),
                11 => wm_file_read_at(first.cast(), u64::from(call[2]), out.cast(), len, &mut error),
                12 => {
                    let (start, path) = (u64::from(call[2]), c"m".as_ptr());
                    wm_model_read_file_at(first.cast(), path, start, out.cast(), len, &mut error)
                }
                13 => match wm_model_tensor(first.cast(), len / 17, &mut tensor, &mut error) {
                    wm_code::WM_OK if tensor.nbytes <= 1 << 16 => {
                        wm_model_read_tensor(first.cast(), tensor.name, out.cast(), tensor.nbytes as usize, &mut error)
                    }
                    code => code,
                },
                14 => {
                    wm_model_read_rows(first.cast(), c"w".as_ptr(), 0, u64::from(call[2]), out.cast(), len, &mut error)
                }
                15 => wm_options_policy(first.cast(), second.cast(), &mut error),
                16 => {
                    let _ = (wm_model_free(first.cast()), wm_sources_free(first.cast()), wm_file_free(first.cast()));
                    wm_options_free(second.cast());
                    wm_code::WM_OK
                }
                _ => {
                    let _ =
                        (wm_model_tensors(first.cast()), wm_file_size(first.cast()), wm_model_verified(first.cast()));
                    let _ = (wm_error_message(first.cast()), wm_report_json(first.cast()), wm_evidence_z(first.cast()));
                    wm_code::WM_OK
                }
            }
        };
        assert_ne!(code, wm_code::WM_PANIC);
        assert_eq!(code == wm_code::WM_OK, error.is_null());
        assert!(code == wm_code::WM_OK || made.is_null());
        wm_error_free(error);
        if !made.is_null() {
            handles.push(made);
        }
    }
    for handle in handles {
        let _ = (wm_model_free(handle.cast()), wm_sources_free(handle.cast()), wm_file_free(handle.cast()));
        wm_options_free(handle.cast());
    }
    assert_eq!(wm_live_handles(), 0);
});
