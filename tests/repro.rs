//! `trivium crosscheck --repro FILE` of two machines that differed, as its user meets it.

use std::path::Path;
use std::process::{Command, Stdio};

use trivium_cpu::{CpuModel, CpuState};
use trivium_crosscheck::lockstep::{Found, LockstepFile, Side};
use trivium_devices::uart16550::SerialBackend;
use trivium_machine::{Accel, ClockMode, Machine, MachineConfig, STACK_SIZE};

const CPUS: [&str; 2] = ["interp", "jit"];

/// Instructions that leave flags undefined: processors do with them what they like, and the JIT leaves
/// that to the host's. Some of them are bound to differ from the interpreter's.
const VAGUE: &[(&str, &[u8])] = &[
    ("shr eax, 8", &[0x66, 0xc1, 0xe8, 0x08]),
    ("shl eax, 5", &[0x66, 0xc1, 0xe0, 0x05]),
    ("rol eax, 5", &[0x66, 0xc1, 0xc0, 0x05]),
    ("imul eax, ecx", &[0x66, 0x0f, 0xaf, 0xc1]),
    ("mul ecx", &[0x66, 0xf7, 0xe1]),
    ("bsf eax, ecx", &[0x66, 0x0f, 0xbc, 0xc1]),
    ("and eax, ecx", &[0x66, 0x21, 0xc8]),
];

/// MOV EAX, 87654321h; MOV ECX, 12345h; CMP AL, 0FFh
const BEFORE: &[u8] =
    &[0x66, 0xb8, 0x21, 0x43, 0x65, 0x87, 0x66, 0xb9, 0x45, 0x23, 0x01, 0, 0x3c, 0xff];

/// A firmware image whose fifth instruction is this one; it ends in a loop.
fn image(instruction: &[u8]) -> Vec<u8> {
    let mut image = vec![0; 0x1_0000];
    let code = [BEFORE, instruction, &[0xeb, 0xfe]].concat();
    image[..code.len()].copy_from_slice(&code);
    // JMP F000:0000
    image[0xfff0..0xfff5].copy_from_slice(&[0xea, 0, 0, 0, 0xf0]);
    image
}

/// A serial line that nobody listens to.
struct Silent;

impl SerialBackend for Silent {
    fn transmit(&mut self, _: u8) {}
}

/// What `trivium run` makes of the options below.
fn machine(accel: Accel, image: &[u8]) -> Side {
    let mut config = MachineConfig::new(CpuModel::by_name("max").unwrap(), 16 << 20);
    config.firmware = Some(image.to_vec());
    config.bare = true;
    config.clock = ClockMode::Icount { sleep: false };
    config.accel = accel;
    config.serial[0] = Some(Box::new(Silent));
    let blocks = config.blocks.clone();
    Side {
        name: format!("{accel:?}"),
        machine: Machine::new(config).unwrap(),
        blocks,
        around: None,
    }
}

/// A file of six instructions after which these flags may differ, and in what they do.
fn file(text: &str, instruction: &[u8], flags: u64) -> (LockstepFile, Vec<String>) {
    let image = image(instruction);
    let mut first = machine(Accel::Interp, &image);
    let found = Found {
        state: first.machine.save().unwrap(),
        history: None,
        instructions: 6,
        cut: None,
        block: 64,
        warm: 0,
        quantum: 0,
        flags,
        before: CpuState::default(),
        code: vec![text.to_owned()],
        differences: Vec::new(),
        is_small: true,
    };
    // The guest's files are not there any more: all of it is in the state.
    let options =
        ["--memory", "16M", "--bios", "gone.rom", "--serial", "null"].map(str::to_owned).to_vec();
    let file = LockstepFile::new(&found, CPUS.map(str::to_owned), options, Some(&image));
    let sides = [machine(Accel::Interp, &image), machine(Accel::Jit, &image)];
    let differences = file.run(&found.state, sides).unwrap();
    (file, differences)
}

/// What the program says of a file, and its exit status.
fn repro(folder: &Path, file: &LockstepFile) -> (String, Option<i32>) {
    std::fs::write(folder.join("case.json"), file.to_text().unwrap()).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_trivium"))
        .args(["crosscheck", "--repro", "case.json"])
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    (String::from_utf8_lossy(&said).into_owned(), output.status.code())
}

#[test]
fn a_file_shows_the_difference_again_and_says_so_by_its_status() {
    let body = || {
        let folder = tempfile::tempdir().unwrap();
        let mut shown = 0;
        for (text, instruction) in VAGUE {
            let (case, differences) = file(text, instruction, 0);
            let (said, status) = repro(folder.path(), &case);
            assert!(said.contains(text), "{said}");
            if differences.is_empty() {
                assert_eq!(
                    (status, said.contains("interp and jit agree")),
                    (Some(0), true),
                    "{said}"
                );
                continue;
            }
            shown += 1;
            assert_eq!(status, Some(1), "{text}: {said}");
            assert!(said.contains("after 6 instructions, interp and jit:"), "{said}");
            for line in differences {
                assert!(line.contains("rflags") && said.contains(&line), "{line}: {said}");
            }
            // The same where it may differ.
            let (case, _) = file(text, instruction, 0x8d5);
            let (said, status) = repro(folder.path(), &case);
            assert_eq!((status, said.contains("interp and jit agree")), (Some(0), true), "{said}");
        }
        if shown == 0 {
            println!("SKIP: this host's processor does with flags what the interpreter does");
        }
    };
    std::thread::Builder::new().stack_size(STACK_SIZE).spawn(body).unwrap().join().unwrap();
}
