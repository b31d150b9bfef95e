//! Guest time while the process is stopped by a signal, as with Ctrl-Z or a suspended host.

use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// What the guest found.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    /// The TSC jumped.
    Jump,
    /// The TSC ran backwards.
    Backwards,
    /// The TSC was steady, and the real-time clock showed so many seconds at the end, in BCD.
    Seconds(i32),
}

/// How long the process is stopped.
const STOP: Duration = Duration::from_secs(3);

/// A ROM that reads the TSC for 3 s by its own count, and ends with 1 if it ever ran backwards, with
/// 2 if it jumped by more than 0.4 s, else with the real-time clock's seconds (BCD) plus 10h.
fn rom() -> Vec<u8> {
    let code = [
        0xba, 0xf8, 0x03, 0xb0, 0x2e, 0xee, // mov dx, 3F8h; mov al, '.'; out dx, al
        0x0f, 0x31, 0x66, 0x89, 0xc3, 0x66, 0x89, 0xd1, // rdtsc; mov ebx, eax; mov ecx, edx
        0x66, 0x89, 0xc6, 0x66, 0x89, 0xd7, // mov esi, eax; mov edi, edx
        0x66, 0x81, 0xc6, 0x00, 0x5e, 0xd0, 0xb2, // add esi, 3000000000
        0x66, 0x83, 0xd7, 0x00, // adc edi, 0
        0x0f, 0x31, // again: rdtsc
        0x66, 0x29, 0xd8, 0x66, 0x19, 0xca, // sub eax, ebx; sbb edx, ecx
        0x72, 0x29, 0x75, 0x2b, // jc backwards; jnz jumped
        0x66, 0x3d, 0x00, 0x84, 0xd7, 0x17, 0x77, 0x23, // cmp eax, 400000000; ja jumped
        0x66, 0x01, 0xc3, 0x66, 0x83, 0xd1, 0x00, // add ebx, eax; adc ecx, 0
        0x66, 0x89, 0xd8, 0x66, 0x89, 0xca, // mov eax, ebx; mov edx, ecx
        0x66, 0x29, 0xf0, 0x66, 0x19, 0xfa, // sub eax, esi; sbb edx, edi
        0x72, 0xd7, // jc again
        0xb0, 0x00, 0xe6, 0x70, 0xe4, 0x71, // mov al, 0; out 70h, al; in al, 71h (seconds)
        0x04, 0x10, 0xeb, 0x06, // add al, 10h; jmp end
        0xb0, 0x01, 0xeb, 0x02, // backwards: mov al, 1; jmp end
        0xb0, 0x02, // jumped: mov al, 2
        0xba, 0x01, 0x05, 0xee, 0xf4, // end: mov dx, 501h; out dx, al; hlt
    ];
    let mut image = vec![0xf4; 0x1_0000];
    image[..code.len()].copy_from_slice(&code);
    image[0xfff0..0xfff5].copy_from_slice(&[0xea, 0, 0, 0, 0xf0]);
    image
}

fn start(rtc: &str) -> (Child, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let image = folder.path().join("rom");
    std::fs::write(&image, rom()).expect("it can be written");
    let child = Command::new(env!("CARGO_BIN_EXE_trivium"))
        .args(["run", "--debug-exit", "--rtc", rtc, "--bios"])
        .arg(&image)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program starts");
    (child, folder)
}

fn signal(child: &Child, name: &str) {
    let id = child.id().to_string();
    let status = Command::new("kill").args([name, &id]).status().expect("there is kill");
    assert!(status.success());
}

/// Stops the process for a while in the middle of the guest's run; what the guest found.
fn stopped_on_the_way(rtc: &str) -> Found {
    let (mut child, _folder) = start(rtc);
    let mut output = child.stdout.take().expect("it is a pipe");
    output.read_exact(&mut [0]).expect("the guest has begun");
    let begun = Instant::now();
    std::thread::sleep(Duration::from_millis(500));
    signal(&child, "-STOP");
    std::thread::sleep(STOP);
    signal(&child, "-CONT");
    // The guest's v is in (v << 1) | 1.
    let found = match child.wait().expect("it ends").code().expect("not by a signal") >> 1 {
        1 => Found::Backwards,
        2 => Found::Jump,
        seconds => Found::Seconds(seconds - 0x10),
    };
    if let Found::Seconds(_) = found {
        // The guest took 3 s; less than half a second of the stop may go unseen.
        let least = STOP + Duration::from_millis(2_500);
        assert!(begun.elapsed() >= least, "the stop was guest time: {:?}", begun.elapsed());
    }
    found
}

#[test]
fn a_stop_of_the_process_is_no_time_for_the_guest() {
    let found = stopped_on_the_way("base=2026-11-21,clock=vm");
    assert!(matches!(found, Found::Seconds(3..=4)), "{found:?}");
}

#[test]
fn a_real_time_clock_that_follows_the_host_goes_on_over_the_stop() {
    let found = stopped_on_the_way("base=2026-11-21,clock=host");
    assert!(matches!(found, Found::Seconds(5..)), "{found:?}");
}

#[test]
fn with_lost_ticks_discarded_time_jumps_over_the_stop() {
    assert_eq!(stopped_on_the_way("lost-ticks=discard"), Found::Jump);
}
