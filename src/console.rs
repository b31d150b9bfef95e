//! The terminal as the guest's serial console: raw mode while the guest runs, Ctrl-A commands, and
//! the terminal as it was on every way out.

use std::io::{IsTerminal, Read, Write};
use std::sync::{Mutex, PoisonError};

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};

/// What is typed after Ctrl-A.
const HELP: &str = "\r
Ctrl-A h  this help\r
Ctrl-A x  end the machine\r
Ctrl-A b  send a break to the serial port\r
Ctrl-A c  type into the next serial port that is on this terminal\r
Ctrl-A 1  type into COM1; 2 to 4 likewise\r
Ctrl-A s  what the JIT has done, with --jit-stats\r
Ctrl-A Ctrl-A  send a Ctrl-A\r\n";

const CTRL_A: u8 = 1;

/// How the terminal was before: kept outside the guard so that the panic hook finds it.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);

/// While it lives, the terminal is in raw mode (if standard input is one).
pub struct RawTerminal(());

impl RawTerminal {
    /// Puts the terminal in raw mode.
    #[must_use]
    pub fn enter() -> Self {
        let stdin = std::io::stdin();
        if stdin.is_terminal()
            && let Ok(before) = tcgetattr(&stdin)
        {
            let mut raw = before.clone();
            raw.make_raw();
            // Line feeds of the guest's and of our own messages still return the carriage.
            raw.output_modes = before.output_modes;
            if tcsetattr(&stdin, OptionalActions::Now, &raw).is_ok() {
                *BEFORE.lock().unwrap_or_else(PoisonError::into_inner) = Some(before);
                restore_on_panic();
            }
        }
        Self(())
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        restore();
    }
}

fn restore() {
    let before = BEFORE.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(before) = before {
        let _ = std::io::stdout().flush();
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &before);
    }
}

fn restore_on_panic() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            restore();
            usual(info);
        }));
    });
}

/// What the user wants of the machine.
#[derive(Debug, PartialEq, Eq)]
pub enum Wish {
    /// These bytes for the serial port.
    Input(Vec<u8>),
    /// A break.
    Break,
    /// The next console.
    Next,
    /// The console of this serial port, from 0.
    Choose(usize),
    /// The end.
    Quit,
    /// The list of commands.
    Help,
    /// What the JIT has done.
    Statistics,
}

/// Finds Ctrl-A commands among what is typed.
#[derive(Debug, Default)]
pub struct Keys {
    escaped: bool,
}

impl Keys {
    /// What the user wants by these bytes.
    pub fn read(&mut self, typed: &[u8]) -> Vec<Wish> {
        let mut wishes = Vec::new();
        let mut plain = Vec::new();
        for &byte in typed {
            let command = match (std::mem::take(&mut self.escaped), byte) {
                (false, CTRL_A) => {
                    self.escaped = true;
                    None
                }
                (true, b'x') => Some(Wish::Quit),
                (true, b'h' | b'?') => Some(Wish::Help),
                (true, b'b') => Some(Wish::Break),
                (true, b'c') => Some(Wish::Next),
                (true, b's') => Some(Wish::Statistics),
                (true, b'1'..=b'4') => Some(Wish::Choose(usize::from(byte - b'1'))),
                _ => {
                    plain.push(byte);
                    None
                }
            };
            if let Some(command) = command {
                if !plain.is_empty() {
                    wishes.push(Wish::Input(std::mem::take(&mut plain)));
                }
                wishes.push(command);
            }
        }
        if !plain.is_empty() {
            wishes.push(Wish::Input(plain));
        }
        wishes
    }
}

/// The serial ports on the terminal: all of them are seen, one is typed into.
pub struct Consoles {
    ports: Vec<usize>,
    focus: usize,
}

impl Consoles {
    /// These ports; the first is typed into.
    #[must_use]
    pub fn new(ports: Vec<usize>) -> Self {
        Self { ports, focus: 0 }
    }

    /// The port that is typed into.
    #[must_use]
    pub fn focus(&self) -> usize {
        self.ports.get(self.focus).copied().unwrap_or_default()
    }

    /// Changes which port is typed into, if that is the wish; gives what to tell of it.
    pub fn change(&mut self, wish: &Wish) -> Option<String> {
        let count = self.ports.len().max(1);
        let wanted = match wish {
            Wish::Next => Some((self.focus + 1) % count),
            Wish::Choose(port) => match self.ports.iter().position(|p| p == port) {
                None => return Some(format!("COM{} is not on this terminal", port + 1)),
                found => found,
            },
            _ => None,
        };
        self.focus = wanted?;
        Some(format!("COM{}", self.focus() + 1))
    }
}

/// Tells the user something, apart from what the guest says.
pub fn tell(text: &str) {
    let mut out = std::io::stdout().lock();
    let text = text.trim_end().replace('\n', "\r\n");
    let _ = write!(out, "\r\n[{text}]\r\n").and_then(|()| out.flush());
}

/// Reads what is typed until the end of input, and hands on what the user wants. Runs in a thread
/// of its own, which ends with the process.
pub fn read_keys(mut act: impl FnMut(Wish)) {
    let escapes = std::io::stdin().is_terminal();
    let mut keys = Keys::default();
    let mut buffer = [0; 256];
    let mut stdin = std::io::stdin().lock();
    while let Ok(count @ 1..) = stdin.read(&mut buffer) {
        let typed = &buffer[..count];
        if !escapes {
            act(Wish::Input(typed.to_vec()));
            continue;
        }
        for wish in keys.read(typed) {
            if wish == Wish::Help {
                let mut out = std::io::stdout().lock();
                let _ = out.write_all(HELP.as_bytes()).and_then(|()| out.flush());
            } else {
                act(wish);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_taken_out_of_what_is_typed() {
        let mut keys = Keys::default();
        assert_eq!(keys.read(b"ls\r"), [Wish::Input(b"ls\r".to_vec())]);
        assert_eq!(
            keys.read(b"a\x01bc"),
            [Wish::Input(b"a".to_vec()), Wish::Break, Wish::Input(b"c".to_vec())]
        );
        assert_eq!(keys.read(b"\x01"), []);
        assert_eq!(keys.read(b"x"), [Wish::Quit]);
        assert_eq!(keys.read(b"\x01\x01"), [Wish::Input(vec![CTRL_A])]);
        assert_eq!(keys.read(b"\x01h"), [Wish::Help]);
        assert_eq!(keys.read(b"\x01s"), [Wish::Statistics]);
        assert_eq!(keys.read(b"\x01c\x012"), [Wish::Next, Wish::Choose(1)]);
    }

    #[test]
    fn consoles_take_turns() {
        let mut consoles = Consoles::new(vec![0, 2]);
        assert_eq!(consoles.focus(), 0);
        assert_eq!(consoles.change(&Wish::Next).as_deref(), Some("COM3"));
        assert_eq!(consoles.focus(), 2);
        assert_eq!(consoles.change(&Wish::Next).as_deref(), Some("COM1"));
        assert_eq!(
            consoles.change(&Wish::Choose(1)).as_deref(),
            Some("COM2 is not on this terminal")
        );
        assert_eq!(consoles.focus(), 0);
        assert_eq!(consoles.change(&Wish::Choose(2)).as_deref(), Some("COM3"));
        assert_eq!(consoles.change(&Wish::Break), None);
    }
}
