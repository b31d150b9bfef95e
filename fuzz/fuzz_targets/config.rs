//! Any text as a command line and a configuration file.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| trivium::hostile::configuration(text));
