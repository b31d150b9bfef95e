//! Boots a kernel or a ROM with COM1 on standard output, for work on the machine itself:
//! `boot [--kernel K --initrd I --append LINE | --bios ROM | --rom NAME | --demo] [--memory MIB] [--cpu MODEL]
//! [--icount] [--seconds N] [--trace FILE] [--hash]`.

use std::io::Write;
use std::time::{Duration, Instant};

use trivium_cpu::CpuModel;
use trivium_devices::uart16550::SerialBackend;
use trivium_machine::{
    ClockMode, KernelConfig, Machine, MachineConfig, TraceCategories, TraceConfig, testing,
};

struct Stdout;

impl SerialBackend for Stdout {
    fn transmit(&mut self, byte: u8) {
        let mut out = std::io::stdout();
        let _ = out.write_all(&[byte]);
        let _ = out.flush();
    }
}

/// An image of our own, by its name.
fn rom(name: &str) -> Result<Vec<u8>, String> {
    let loops = trivium_test_roms::LOOPS.iter().copied();
    let micro = trivium_test_roms::MICRO.iter().map(|&(name, image, _)| (name, image));
    let mut roms = loops.chain(micro);
    roms.find(|rom| rom.0 == name).map(|rom| rom.1.to_vec()).ok_or(format!("no ROM {name}"))
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    env_logger::init();
    let model = CpuModel::parse("max")?;
    let mut config = MachineConfig::new(model, 512 << 20);
    config.serial[0] = Some(Box::new(Stdout));
    config.no_reboot = true;
    let mut kernel = KernelConfig::default();
    let (mut seconds, mut hash) = (600, false);
    let mut arguments = std::env::args().skip(1);
    while let Some(option) = arguments.next() {
        match option.as_str() {
            "--icount" => config.clock = ClockMode::Icount { sleep: false },
            "--hash" => hash = true,
            "--demo" => config.firmware = Some(trivium_test_roms::DEMO.to_vec()),
            _ => {
                let value = arguments.next().ok_or("an option has no value")?;
                match option.as_str() {
                    "--kernel" => kernel.image = std::fs::read(value)?,
                    "--initrd" => kernel.initrd = Some(std::fs::read(value)?),
                    "--append" => kernel.command_line = value,
                    "--rom" => config.firmware = Some(rom(&value)?),
                    "--bios" => config.firmware = Some(std::fs::read(value)?),
                    "--memory" => config.memory_size = value.parse::<u64>()? << 20,
                    "--cpu" => config.model = CpuModel::parse(&value)?,
                    "--seconds" => seconds = value.parse()?,
                    "--trace" => {
                        let sink = std::io::BufWriter::new(std::fs::File::create(value)?);
                        let categories = TraceCategories::all();
                        config.trace = Some(TraceConfig { categories, sink: Box::new(sink) });
                    }
                    _ => return Err(format!("unknown option {option}").into()),
                }
            }
        }
    }
    if config.firmware.is_none() {
        config.kernel = Some(kernel);
    }
    let start = Instant::now();
    let mut machine = Machine::new(config)?;
    eprintln!("ready after {:?}", start.elapsed());
    let (end, timed_out) = testing::run_limited(&mut machine, Duration::from_secs(seconds))?;
    eprintln!("\n{end:x?} after {:?}, virtual time {}", start.elapsed(), machine.now());
    if timed_out {
        eprintln!("timed out; {:x?}", machine.save()?.cpus);
    }
    if hash {
        eprintln!("state {}", machine.state_hash()?);
    }
    Ok(())
}
