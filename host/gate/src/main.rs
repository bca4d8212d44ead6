//! `stoker-gate`: the process's entry, and nothing else. C's instead of Rust's, whose runtime ignores SIGPIPE and
//! opens `/dev/null` in place of closed standard streams before `main`: the workload, which this process
//! becomes, would get both. So nothing is changed, and nothing has to be put back.
//!
//! The only unsafe code of the gate is here.
#![no_main]
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char, c_int};

// SAFETY: no other symbol of the program is called so: Rust makes none with `no_main`.
#[unsafe(no_mangle)]
extern "C" fn main(count: c_int, arguments: *const *const c_char) -> c_int {
    let count = usize::try_from(count).unwrap_or(0);
    // SAFETY: C promises `count` pointers to strings that end with a zero and live as long as the process;
    // nobody changes them. The first, if there is one, is the program's name.
    let arguments: Vec<&'static CStr> =
        (1..count).map(|n| unsafe { CStr::from_ptr(*arguments.add(n)) }).collect();
    stoker_gate::run(&arguments)
}
