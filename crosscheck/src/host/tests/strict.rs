//! Hosts that grant less, made by a seccomp filter on a thread of this process.

#![allow(unsafe_code)]

use super::*;
use crate::case::Width;
use crate::engine::EngineError;

/// Runs something where a system call fails with an error: a filter belongs to its thread, and
/// what that starts inherits it.
fn without<T: Send>(call: i64, errno: i32, then: impl FnOnce() -> T + Send) -> T {
    let instruction = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let mut program = [
        instruction(0x20, 0, 0, 0),
        instruction(0x15, 0, 1, call as u32),
        instruction(0x06, 0, 0, libc::SECCOMP_RET_ERRNO | errno as u32),
        instruction(0x06, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            let filter = libc::sock_fprog { len: 4, filter: program.as_mut_ptr() };
            // SAFETY: both calls only read their arguments, which live until they return; they
            // concern this thread alone, which ends below.
            let set = unsafe {
                libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
                libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &filter)
            };
            assert_eq!(set, 0, "{}", io::Error::last_os_error());
            then()
        });
        thread.join().unwrap()
    })
}

#[test]
fn a_host_that_cannot_says_why() {
    let table = [
        (libc::SYS_memfd_create, libc::ENOSYS, "no shared memory"),
        (libc::SYS_execve, libc::EPERM, "no process"),
        (libc::SYS_seccomp, libc::EINVAL, "may not call seccomp"),
    ];
    for (call, errno, reason) in table {
        let error = without(call, errno, || HostEngine::new().err()).unwrap();
        let text = error.to_string();
        assert!(matches!(error, EngineError::Unavailable { .. }), "{text}");
        assert!(text.starts_with("Engine 'host' cannot run here: "), "{text}");
        assert!(text.contains(reason) && !text.contains('\n'), "{text}");
    }
}

#[test]
fn a_host_without_local_tables_refuses_their_cases_only() {
    let mut engine = without(libc::SYS_modify_ldt, libc::ENOSYS, || HostEngine::new().unwrap());
    let mut with = case(&[0x90]);
    with.ldt = vec![None];
    assert_eq!(engine.refuses(&with), None, "an empty table");
    let mut code32 = case(&[0x90]);
    code32.width = Width::Bits32;
    code32.state.selectors[1] = selector::CODE32;
    assert_eq!(engine.run(&[code32]).unwrap()[0].stop, exception(3, 0, 0));
    let entry = LdtEntry {
        base: 0,
        limit: 0,
        pages: false,
        code: false,
        open: true,
        expand_down: false,
        big: true,
        present: true,
    };
    with.ldt = vec![Some(entry)];
    assert_eq!(engine.refuses(&with), Some("this kernel grants no local descriptor table"));
}
