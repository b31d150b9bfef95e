//! Any bytes as a program of accesses, moments and host events for a device: the one that
//! `TRIVIUM_FUZZ_DEVICE` names, else that which the first byte chooses.
//!
//! With `TRIVIUM_FUZZ_DEVICE=list` it names the devices and ends.

#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use trivium_devices::testing::{TARGETS, Target};

static CHOSEN: OnceLock<Option<&Target>> = OnceLock::new();

fn choose() {
    let name = std::env::var("TRIVIUM_FUZZ_DEVICE").ok();
    if name.as_deref() == Some("list") {
        TARGETS.iter().for_each(|target| println!("{}", target.name));
        std::process::exit(0);
    }
    let chosen = name.map(|name| {
        let found = TARGETS.iter().find(|target| target.name == name);
        found.unwrap_or_else(|| panic!("There is no device {name}"))
    });
    CHOSEN.get_or_init(|| chosen);
}

fuzz_target!(init: choose(), |bytes: &[u8]| {
    match CHOSEN.get().copied().flatten() {
        Some(target) => (target.run)(bytes),
        None => {
            if let Some((first, rest)) = bytes.split_first() {
                (TARGETS[usize::from(*first) % TARGETS.len()].run)(rest);
            }
        }
    }
});
