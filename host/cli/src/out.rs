//! Standard output. Whoever reads it may have enough before its end, as `head` has: then there is nothing more to do, and
//! nothing to complain of.

use std::fmt::Arguments;
use std::io::{ErrorKind, Write as _};

/// Prints a line, as `println!` does, but ends the program well when nobody reads any more.
macro_rules! say {
    () => { $crate::out::print(format_args!("\n")) };
    ($($words:tt)*) => { $crate::out::print(format_args!("{}\n", format_args!($($words)*))) };
}

/// Prints, and ends the program when that is not possible: well if nobody reads any more.
pub fn print(text: Arguments<'_>) {
    let mut out = std::io::stdout();
    match out.write_fmt(text).and_then(|()| out.flush()) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::BrokenPipe => std::process::exit(0),
        Err(error) => {
            eprintln!("stoker: cannot print: {error}");
            std::process::exit(1);
        }
    }
}
