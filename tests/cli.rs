//! The program as its user meets it: the demonstration, mistakes in one line, exit statuses.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

fn trivium(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_trivium"))
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("the program starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A file in a folder that goes away with the test.
fn file(folder: &tempfile::TempDir, name: &str, content: &[u8]) -> PathBuf {
    let path = folder.path().join(name);
    std::fs::write(&path, content).expect("a temporary file can be written");
    path
}

/// A 64 KiB ROM whose reset vector jumps to this code at F000:0000.
fn rom(code: &[u8]) -> Vec<u8> {
    let mut image = vec![0xf4; 0x1_0000];
    image[..code.len()].copy_from_slice(code);
    // jmp F000:0000
    image[0xfff0..0xfff5].copy_from_slice(&[0xea, 0, 0, 0, 0xf0]);
    image
}

fn utf8(path: &Path) -> &str {
    path.to_str().expect("temporary names are plain")
}

#[test]
fn the_demonstration_powers_off_with_everything_right() {
    let output = trivium(&["demo"]);
    let shown = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{shown}{}", text(&output.stderr));
    assert!(shown.contains("78,498 below 1,000,000"), "{shown}");
    let wrong = shown.lines().find(|line| line.contains("results that were wrong"));
    assert!(wrong.is_some_and(|line| line.trim_end().ends_with('0')), "{shown}");
}

#[test]
fn the_demonstration_is_the_same_under_icount_to_the_byte() {
    let run = || trivium(&["demo", "--clock", "icount,sleep=off"]);
    let (first, second) = (run(), run());
    assert_eq!(first.status.code(), Some(0));
    assert!(first.stdout == second.stdout);
}

#[test]
fn a_wrong_file_is_one_line_with_status_2() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let empty = file(&folder, "empty", b"");
    let plain = file(&folder, "plain.txt", b"This is not a kernel.\n");
    let mut elf = vec![0; 4096];
    elf[..20].copy_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\xb7\0");
    let arm = file(&folder, "arm", &elf);
    let missing = folder.path().join("missing");
    let kernel = |path: &Path| trivium(&["run", "--kernel", utf8(path)]);
    let cases = [
        (kernel(&empty), "empty", "empty"),
        (kernel(&plain), "plain.txt", "give a"),
        (kernel(&arm), "arm", "x86"),
        (kernel(&missing), "missing", "No such file"),
        (kernel(folder.path()), "--kernel", "folder"),
        (trivium(&["run", "--bios", utf8(&missing)]), "--bios", "missing"),
    ];
    for (output, named, reason) in cases {
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert_eq!(said.trim_end().lines().count(), 1, "{said}");
        assert!(said.contains(named) && said.contains(reason), "{said}");
    }
}

#[test]
fn more_memory_than_the_host_has_is_refused_by_name() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let image = file(&folder, "rom", &rom(&[0xf4]));
    let output = trivium(&["run", "--bios", utf8(&image), "--memory", "1000000G"]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("--memory") && said.contains("host"), "{said}");
}

/// Other CPUs do not reach the kernel's interrupt chips: said before anything starts.
#[test]
fn interrupt_chips_of_the_kernels_are_refused_beside_other_cpus() {
    let beside: [&[&str]; 3] = [
        &["--accel", "jit", "--kvm", "irqchip=on"],
        &["--accel", "kvm:jit", "--kvm", "irqchip=split,level=all"],
        &["--accel", "kvm", "--kvm", "irqchip=on", "--switch-cpus", "kvm,jit"],
    ];
    for arguments in beside {
        let folder = tempfile::tempdir().expect("a folder");
        let rom = folder.path().join("rom");
        std::fs::write(&rom, vec![0xf4; 0x1_0000]).expect("it is written");
        let output = trivium(&[&["run", "--bios", utf8(&rom)], arguments].concat());
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains("--kvm: irqchip="), "{said}");
        assert!(said.contains("use --accel kvm alone with it, or irqchip=off"), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
}

#[test]
fn isa_debug_exit_sets_the_status() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    // mov dx, 501h; mov al, 21; out dx, al; hlt
    let image = file(&folder, "rom", &rom(&[0xba, 0x01, 0x05, 0xb0, 21, 0xee, 0xf4]));
    let output = trivium(&["run", "--bios", utf8(&image), "--debug-exit"]);
    assert_eq!(output.status.code(), Some((21 << 1) | 1), "{}", text(&output.stderr));
}

#[test]
fn a_triple_fault_shows_the_processor() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    // lidt [cs:8]; int3; at 8: a table of no bytes.
    let code = [0x2e, 0x0f, 0x01, 0x1e, 8, 0, 0xcc, 0x90, 0, 0, 0, 0, 0, 0];
    let image = file(&folder, "rom", &rom(&code));
    let output = trivium(&["run", "--bios", utf8(&image), "--no-reboot"]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("triple fault") && said.contains("code at rip: cc"), "{said}");
}

#[test]
fn serial_output_goes_to_a_file() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    // mov dx, 3F8h; mov al, 'T'; out dx, al; then isa-debug-exit.
    let code = [0xba, 0xf8, 0x03, 0xb0, b'T', 0xee, 0xba, 0x01, 0x05, 0xee, 0xf4];
    let image = file(&folder, "rom", &rom(&code));
    let out = folder.path().join("out");
    let serial = format!("file:{}", utf8(&out));
    let output = trivium(&["run", "--bios", utf8(&image), "--debug-exit", "--serial", &serial]);
    assert_eq!(output.status.code(), Some(((i32::from(b'T') << 1) | 1) & 0xff));
    assert_eq!(std::fs::read(&out).expect("the file is there"), b"T");
}

#[test]
fn a_trace_has_the_ports_that_were_written() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let code = [0xb0, 0x5a, 0xe6, 0x80, 0xba, 0x01, 0x05, 0xee, 0xf4];
    let image = file(&folder, "rom", &rom(&code));
    let trace = folder.path().join("trace");
    trivium(&[
        "run",
        "--bios",
        utf8(&image),
        "--debug-exit",
        "--trace",
        "io",
        "--trace-file",
        utf8(&trace),
    ]);
    let lines = std::fs::read_to_string(&trace).expect("the trace is there");
    assert!(lines.lines().any(|l| l.contains("0080") && l.contains("5a")), "{lines}");
}

#[test]
fn a_trace_has_the_exceptions_that_were_delivered() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    // ud2 with an empty interrupt table: #UD, #GP, double fault, shutdown.
    let code = [0x2e, 0x0f, 0x01, 0x1e, 8, 0, 0x0f, 0x0b, 0, 0, 0, 0, 0, 0];
    let image = file(&folder, "rom", &rom(&code));
    let trace = folder.path().join("trace");
    let output = trivium(&[
        "run",
        "--bios",
        utf8(&image),
        "--no-reboot",
        "--trace",
        "int",
        "--trace-file",
        utf8(&trace),
    ]);
    assert_eq!(output.status.code(), Some(3), "{}", text(&output.stderr));
    let lines = std::fs::read_to_string(&trace).expect("the trace is there");
    assert!(lines.contains("vector 06 at 6"), "{lines}");
}

#[test]
fn the_program_tells_of_itself() {
    let models = text(&trivium(&["models"]).stdout);
    assert!(models.contains("qemu64") && models.contains("max"), "{models}");
    assert!(text(&trivium(&["completions", "bash"]).stdout).contains("trivium"));
    let folder = tempfile::tempdir().expect("a temporary folder");
    assert!(trivium(&["man", utf8(folder.path())]).status.success());
    assert!(folder.path().join("trivium-run.1").exists());
}
