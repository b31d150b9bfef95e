//! What the child does before it serves: a list of system calls that ends with the seccomp filter.

use super::arena::{
    ARENA_AT, CODE_AT, CONFIG, CONFIG_SIZE, INPUT, INPUT_SIZE, PRISTINE, SIZE, WORKING,
    child_address,
};
use crate::layout::{PAGE, REGIONS};

/// The signals that end a case: all that exceptions become, and the timer's.
const SIGNALS: [i32; 7] = [
    libc::SIGSEGV,
    libc::SIGBUS,
    libc::SIGILL,
    libc::SIGFPE,
    libc::SIGTRAP,
    libc::SIGSYS,
    libc::SIGPROF,
];

/// The system calls that the child keeps, from its own page only.
const KEPT: [i64; 5] = [
    libc::SYS_rt_sigreturn,
    libc::SYS_modify_ldt,
    libc::SYS_futex,
    libc::SYS_getppid,
    libc::SYS_exit_group,
];

/// A tick of the timer that ends loops, in microseconds of processor time.
const TICK_US: u64 = 4_000;
/// Limits: bytes of address space, seconds of processor time until the kernel ends the child.
const ADDRESS_SPACE: u64 = 64 << 20;
const CPU_SECONDS: u64 = 3_600;
/// The end of the addresses that programs have.
const USER_END: u64 = 0x7fff_ffff_f000;

/// The mask of the signals that a case may be ended by.
pub(super) fn signals_taken() -> u64 {
    SIGNALS.iter().fold(0, |mask, signal| mask | 1 << (signal - 1))
}

/// A system call of the setup.
struct Call {
    name: &'static str,
    number: i64,
    arguments: [u64; 6],
    may_fail: bool,
}

/// The list, and the tables that its arguments point to.
pub(super) struct Setup {
    calls: Vec<Call>,
    /// Bytes of the tables; they lie behind the list.
    tables: Vec<u8>,
}

/// Bytes of a call in the list.
const CALL: usize = 64;
/// Where the tables begin.
const TABLES: usize = PAGE as usize;

impl Setup {
    /// # Panics
    /// Never: the list has a fixed length.
    pub(super) fn new(handler: usize) -> Self {
        let mut setup = Self { calls: Vec::new(), tables: Vec::new() };
        setup.address_space();
        setup.files_and_limits();
        setup.signals(handler);
        setup.filter();
        assert!((setup.calls.len() + 1) * CALL <= TABLES);
        assert!(TABLES + setup.tables.len() <= CONFIG_SIZE);
        setup
    }

    /// The name of a call by its number, from 1.
    pub(super) fn name(&self, number: u32) -> &'static str {
        let call = (number as usize).checked_sub(1).and_then(|n| self.calls.get(n));
        call.map_or("a call", |c| c.name)
    }

    /// As the child reads it.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for call in &self.calls {
            bytes.extend(call.number.to_le_bytes());
            bytes.extend(call.arguments.iter().flat_map(|a| a.to_le_bytes()));
            bytes.extend(u64::from(call.may_fail).to_le_bytes());
        }
        bytes.extend((-1i64).to_le_bytes());
        bytes.resize(TABLES, 0);
        bytes.extend(&self.tables);
        bytes
    }

    fn call(&mut self, name: &'static str, number: i64, arguments: &[u64]) {
        let mut all = [0; 6];
        all[..arguments.len()].copy_from_slice(arguments);
        self.calls.push(Call { name, number, arguments: all, may_fail: false });
    }

    fn may_fail(&mut self) {
        if let Some(call) = self.calls.last_mut() {
            call.may_fail = true;
        }
    }

    /// Puts words into the tables; gives their address in the child.
    fn table(&mut self, words: &[u64]) -> u64 {
        let at = child_address(CONFIG + TABLES + self.tables.len());
        self.tables.extend(words.iter().flat_map(|w| w.to_le_bytes()));
        at
    }

    /// Nothing is mapped but the child's own pages and the regions.
    fn address_space(&mut self) {
        self.call("munmap", libc::SYS_munmap, &[0, CODE_AT]);
        let arena_end = ARENA_AT + SIZE as u64;
        self.call("munmap", libc::SYS_munmap, &[arena_end, USER_END - arena_end]);
        // A kernel that seals the vDSO refuses; then that stays, at a random address.
        self.may_fail();
        let mut offset = WORKING as u64;
        for region in &REGIONS {
            let bit = |set: bool, bit: i32| if set { bit as u64 } else { 0 };
            let may = libc::PROT_READ as u64
                | bit(region.write, libc::PROT_WRITE)
                | bit(region.execute, libc::PROT_EXEC);
            // A page that is not yet there would change the error code of its faults.
            let how = (libc::MAP_SHARED | libc::MAP_FIXED | libc::MAP_POPULATE) as u64;
            let arguments = [region.start, region.len, may, how, 0, offset];
            self.call("mmap", libc::SYS_mmap, &arguments);
            self.call("mlock", libc::SYS_mlock, &[region.start, region.len]);
            self.may_fail();
            offset += region.len;
        }
        for (at, len) in [(CONFIG, CONFIG_SIZE), (PRISTINE, INPUT - PRISTINE), (INPUT, INPUT_SIZE)]
        {
            let arguments = [child_address(at), len as u64, libc::PROT_READ as u64];
            self.call("mprotect", libc::SYS_mprotect, &arguments);
        }
    }

    fn files_and_limits(&mut self) {
        for file in 0..3 {
            self.call("close", libc::SYS_close, &[file]);
            self.may_fail();
        }
        self.call("close_range", libc::SYS_close_range, &[3, u64::from(u32::MAX), 0]);
        self.may_fail();
        let limits = [
            (libc::RLIMIT_AS, ADDRESS_SPACE),
            (libc::RLIMIT_CORE, 0),
            (libc::RLIMIT_CPU, CPU_SECONDS),
            (libc::RLIMIT_NOFILE, 0),
            (libc::RLIMIT_FSIZE, 0),
        ];
        for (what, limit) in limits {
            let table = self.table(&[limit, limit]);
            self.call("prlimit", libc::SYS_prlimit64, &[0, u64::from(what), table, 0]);
            // It may be lower already.
            self.may_fail();
        }
    }

    /// All signals wait, and those of [`SIGNALS`] are only taken while a case runs.
    fn signals(&mut self, handler: usize) {
        let all = self.table(&[!0]);
        let set = libc::SIG_SETMASK as u64;
        self.call("rt_sigprocmask", libc::SYS_rt_sigprocmask, &[set, all, 0, 8]);
        const SA_RESTORER: u64 = 0x0400_0000;
        let flags = (libc::SA_SIGINFO | libc::SA_ONSTACK) as u64 | SA_RESTORER;
        let handler = CODE_AT + super::elf::CODE_OFFSET + handler as u64;
        let action = self.table(&[handler, flags, CODE_AT, !0]);
        for signal in SIGNALS {
            self.call("rt_sigaction", libc::SYS_rt_sigaction, &[signal as u64, action, 0, 8]);
        }
        let ticks = self.table(&[0, TICK_US, 0, TICK_US]);
        self.call("setitimer", libc::SYS_setitimer, &[libc::ITIMER_PROF as u64, ticks, 0]);
    }

    fn filter(&mut self) {
        let name = self.table(&[*b"trivium-", *b"host\0\0\0\0"].map(u64::from_le_bytes));
        self.call("prctl", libc::SYS_prctl, &[libc::PR_SET_NAME as u64, name]);
        self.may_fail();
        let none = libc::PR_SET_NO_NEW_PRIVS as u64;
        self.call("prctl", libc::SYS_prctl, &[none, 1, 0, 0, 0]);
        let program = filter();
        let at = self.table(&program);
        let what = self.table(&[program.len() as u64, at]);
        // The guards against speculation that a filter brings on older kernels cost much, and
        // there is nothing to guard.
        let flags = libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW;
        let mode = u64::from(libc::SECCOMP_SET_MODE_FILTER);
        self.call("seccomp", libc::SYS_seccomp, &[mode, flags, what]);
    }
}

/// The filter, in instructions of classic BPF: [`KEPT`] from the child's own page, all else is
/// SIGSYS, so that a case may do what it likes with SYSCALL and INT 80h.
fn filter() -> Vec<u64> {
    const LOAD: u64 = 0x20;
    const AND: u64 = 0x54;
    const EQUAL: u64 = 0x15;
    const RETURN: u64 = 0x06;
    /// Offsets in `seccomp_data`.
    const NUMBER: u64 = 0;
    const ARCH: u64 = 4;
    const IP: u64 = 8;
    const AUDIT_ARCH_X86_64: u64 = 0xc000_003e;
    let instruction = |code: u64, yes: usize, no: usize, k: u64| {
        code | (yes as u64) << 16 | (no as u64) << 24 | k << 32
    };
    let kept = KEPT.len();
    // Where the three instructions before the end are, for the conditions before them.
    let mut program = Vec::new();
    let conditions =
        [(ARCH, !0, AUDIT_ARCH_X86_64), (IP + 4, !0, CODE_AT >> 32), (IP, !0xfff, CODE_AT)];
    for (n, (offset, mask, value)) in conditions.into_iter().enumerate() {
        let left = 3 * (conditions.len() - 1 - n) + 1 + kept;
        program.push(instruction(LOAD, 0, 0, offset));
        program.push(instruction(AND, 0, 0, mask & 0xffff_ffff));
        program.push(instruction(EQUAL, 0, left, value & 0xffff_ffff));
    }
    program.push(instruction(LOAD, 0, 0, NUMBER));
    for (n, number) in KEPT.iter().enumerate() {
        program.push(instruction(EQUAL, kept - n, 0, *number as u64));
    }
    program.push(instruction(RETURN, 0, 0, u64::from(libc::SECCOMP_RET_TRAP)));
    program.push(instruction(RETURN, 0, 0, u64::from(libc::SECCOMP_RET_ALLOW)));
    program
}
