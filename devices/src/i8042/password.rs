//! The controller's password: while it is enabled, nothing that is typed reaches the system before
//! the password was (IBM PS/2 Hardware Interface Technical Reference, commands A4h to A6h).

/// The longest password, in scan codes; more of it is lost.
pub(super) const LONGEST: usize = 7;
/// The end of a password that is being loaded.
const END: u8 = 0;
/// Break codes of set 1 have this bit.
const BREAK_1: u8 = 0x80;

/// The password and how much of it was typed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Password {
    /// Make codes of set 1; empty if there is none.
    pub(super) codes: Vec<u8>,
    /// How many of them were typed, while it is enabled.
    pub(super) typed: Option<u8>,
}

impl Password {
    /// A password was loaded.
    pub(super) fn is_installed(&self) -> bool {
        !self.codes.is_empty()
    }

    /// A new password begins to be loaded.
    pub(super) fn begin(&mut self) {
        *self = Self::default();
    }

    /// A byte of it; says whether more are to come.
    pub(super) fn load(&mut self, code: u8) -> bool {
        if code != END && self.codes.len() < LONGEST {
            self.codes.push(code);
        }
        code != END
    }

    /// Enables it, if there is one; says whether there is.
    pub(super) fn enable(&mut self) -> bool {
        self.typed = self.is_installed().then_some(0);
        self.is_installed()
    }

    /// Whether keys are held back.
    pub(super) fn is_enabled(&self) -> bool {
        self.typed.is_some()
    }

    /// A code of set 1 was typed, of which `ignored` count for nothing; says whether that was the
    /// last of the password, which is then enabled no more.
    pub(super) fn compare(&mut self, code: u8, ignored: [u8; 2]) -> bool {
        let Some(typed) = self.typed else { return false };
        if code & BREAK_1 != 0 || ignored.contains(&code) {
            return false;
        }
        let is = |n: u8| self.codes.get(usize::from(n)) == Some(&code);
        let typed = if is(typed) { typed + 1 } else { u8::from(is(0)) };
        let matched = usize::from(typed) >= self.codes.len();
        self.typed = (!matched).then_some(typed);
        matched
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_is_matched_code_by_code() {
        let mut password = Password::default();
        assert!(!password.enable());
        password.begin();
        assert!(password.load(0x1e) && password.load(0x30) && !password.load(0));
        assert!(password.is_installed() && password.enable());
        let typed =
            [0x30, 0x1e, 0x9e, 0x1e, 0x2a, 0x30].map(|code| password.compare(code, [0x2a, 0]));
        assert_eq!(typed, [false, false, false, false, false, true]);
        assert!(!password.is_enabled() && password.is_installed());
    }
}
