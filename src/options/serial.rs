//! A serial port on the command line: where it goes, and whether its line has a pace.

use super::SerialOption;

/// What `--serial` takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SerialPortOption {
    /// Where characters go to and come from.
    pub end: SerialOption,
    /// Characters take the time of the baud rate.
    pub baud: bool,
}

impl From<SerialOption> for SerialPortOption {
    fn from(end: SerialOption) -> Self {
        Self { end, baud: false }
    }
}

impl std::str::FromStr for SerialPortOption {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (end, baud) = match text.rsplit_once(",baud=") {
            None => (text, false),
            Some((end, "on")) => (end, true),
            Some((end, "off")) => (end, false),
            Some(_) => return Err("use baud=on or baud=off".into()),
        };
        Ok(Self { end: end.parse()?, baud })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pace_is_said_at_the_end() {
        let on = SerialPortOption { end: SerialOption::Stdio, baud: true };
        assert_eq!("stdio,baud=on".parse(), Ok(on));
        assert_eq!("null,baud=off".parse(), Ok(SerialPortOption::from(SerialOption::Null)));
        let socket: SerialPortOption = "tcp:4000,connect,baud=on".parse().expect("good");
        assert!(socket.baud && matches!(socket.end, SerialOption::Socket(s) if s.connect));
        assert!("stdio,baud=9600".parse::<SerialPortOption>().is_err());
        assert!("tape,baud=on".parse::<SerialPortOption>().is_err());
    }
}
