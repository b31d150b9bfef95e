//! Single ports of the ISA bridge and of virtual machines: 92h, 80h, E9h and the debug exit.

mod debug_console;
mod debug_exit;
mod port92;
mod post;

pub use debug_console::{DebugConsole, DebugConsoleBackend};
pub use debug_exit::DebugExit;
pub use port92::Port92;
pub use post::PostPort;

#[cfg(test)]
mod tests;
