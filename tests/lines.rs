//! Options from files, and serial lines to other programs, as a user meets them.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A ROM that answers one character on COM1 with the next in the alphabet, and powers off through
/// isa-debug-exit.
fn rom() -> Vec<u8> {
    let code = [
        0xba, 0xfd, 0x03, // mov dx, 3FDh (line status)
        0xec, 0xa8, 0x01, // in al, dx; test al, 1 (data ready)
        0x74, 0xfb, // jz to the IN
        0xba, 0xf8, 0x03, 0xec, // mov dx, 3F8h; in al, dx
        0xfe, 0xc0, 0xee, // inc al; out dx, al
        0xba, 0x01, 0x05, 0xb0, 0x00, 0xee, // mov dx, 501h; mov al, 0; out dx, al
        0xf4,
    ];
    let mut image = vec![0xf4; 0x1_0000];
    image[..code.len()].copy_from_slice(&code);
    image[0xfff0..0xfff5].copy_from_slice(&[0xea, 0, 0, 0, 0xf0]);
    image
}

fn start(arguments: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_trivium"))
        .arg("run")
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts")
}

fn utf8(path: &Path) -> &str {
    path.to_str().expect("temporary names are plain")
}

/// Tries until it works, for some seconds.
fn eventually<T>(mut attempt: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(done) = attempt() {
            return done;
        }
        assert!(start.elapsed() < Duration::from_secs(30), "it never works");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Types a character; the guest must answer with the next.
fn converse(mut line: impl Read + Write) {
    line.write_all(b"A").expect("it is written");
    let mut answer = [0];
    line.read_exact(&mut answer).expect("the guest answers");
    assert_eq!(&answer, b"B");
}

#[test]
fn a_program_talks_to_the_guest_through_a_socket() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let image = folder.path().join("rom");
    std::fs::write(&image, rom()).expect("it can be written");
    let socket = folder.path().join("com1");
    let serial = format!("unix:{}", utf8(&socket));
    let mut child = start(&["--bios", utf8(&image), "--debug-exit", "--serial", &serial]);
    converse(eventually(|| UnixStream::connect(&socket).ok()));
    assert_eq!(child.wait().expect("it ends").code(), Some(1));
}

#[test]
fn options_come_from_a_file_and_the_command_line_wins() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let image = folder.path().join("rom");
    std::fs::write(&image, rom()).expect("it can be written");
    let config = folder.path().join("machine.toml");
    let content = format!(
        "bios = '{}'\nmemory = '16M'\ndebug-exit = '0x501'\nserial = ['null']\n",
        utf8(&image)
    );
    std::fs::write(&config, content).expect("it can be written");
    let pipe = folder.path().join("com1");
    let serial = format!("fifo:{}", utf8(&pipe));
    let used = folder.path().join("used.toml");
    let printed = format!("--print-config={}", utf8(&used));
    let mut child = start(&["--config", utf8(&config), "--serial", &serial, &printed]);
    let open = |end: &str| {
        let path = pipe.with_extension(end);
        eventually(|| std::fs::OpenOptions::new().read(true).write(true).open(&path).ok())
    };
    let (mut to_guest, mut from_guest) = (open("in"), open("out"));
    to_guest.write_all(b"A").expect("it is written");
    let mut answer = [0];
    from_guest.read_exact(&mut answer).expect("the guest answers");
    assert_eq!(&answer, b"B");
    assert_eq!(child.wait().expect("it ends").code(), Some(1));
    let used = std::fs::read_to_string(&used).expect("it was written");
    assert!(used.contains("memory = \"16M\"") && used.contains("fifo:"), "{used}");
}

#[test]
fn a_file_that_is_wrong_is_told_of_in_one_line() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let config = folder.path().join("machine.toml");
    for (content, named) in [("memroy = 1", "memroy"), ("=", "machine.toml")] {
        std::fs::write(&config, content).expect("it can be written");
        let output = start(&["--config", utf8(&config)]).wait_with_output().expect("it ends");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.trim_end().lines().count() == 1 && said.contains(named), "{said}");
    }
}
