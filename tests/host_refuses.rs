//! A host whose policy lets no memory be executed that was written: `--accel jit` says so.

#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

use std::os::unix::process::CommandExt;
use std::process::{Command, Output, Stdio};

const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const HAS: u16 = (libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
/// Of seccomp(2)'s `seccomp_data`: the number of the call, its third and fourth argument.
const NUMBER: u32 = 0;
const THIRD: u32 = 16 + 2 * 8;
const FOURTH: u32 = 16 + 3 * 8;

/// No shared memory may be executed; programs and libraries are mapped privately.
const POLICY: [(u16, u8, u8, u32); 8] = [
    (LOAD, 0, 0, NUMBER),
    (EQUAL, 0, 4, libc::SYS_mmap as u32),
    (LOAD, 0, 0, THIRD),
    (HAS, 0, 2, libc::PROT_EXEC as u32),
    (LOAD, 0, 0, FOURTH),
    (HAS, 1, 0, libc::MAP_SHARED as u32),
    (RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
    (RETURN, 0, 0, libc::SECCOMP_RET_ERRNO | libc::EACCES as u32),
];

fn refused(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_trivium"));
    command.args(arguments).stdin(Stdio::null());
    let mut list = POLICY.map(|(code, jt, jf, k)| libc::sock_filter { code, jt, jf, k });
    let limit = move || {
        let program = libc::sock_fprog { len: list.len() as u16, filter: list.as_mut_ptr() };
        // SAFETY: the program is there during the call.
        let done = unsafe {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
                | libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program)
        };
        if done == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
    };
    // SAFETY: it makes two system calls and no more.
    unsafe { command.pre_exec(limit) };
    command.output().expect("the program starts")
}

#[test]
fn the_jit_says_that_it_cannot_run_and_the_interpreter_runs() {
    let output = refused(&["demo", "--accel", "jit"]);
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.contains("--accel jit: The host gives no memory for translated code"), "{text}");
    assert!(text.contains("use --accel interp"), "{text}");
    assert_eq!(refused(&["demo", "--accel", "interp"]).status.code(), Some(0));
}
