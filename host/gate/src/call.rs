//! The command line. Arguments are bytes, as the kernel hands them over: only what the gate itself reads must
//! be text, the command's need not be.

use std::ffi::{CStr, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::SystemTime;

use crate::instant;

pub const USAGE: &str = "\
usage: stoker-gate install FILE
       stoker-gate pulled
       stoker-gate wait INSTANT
       stoker-gate exec INSTANT -- COMMAND [ARG...]";

/// What is asked for.
#[derive(Debug, PartialEq)]
pub enum Call<'a> {
    Install(&'a Path),
    Pulled,
    Wait(SystemTime),
    /// The command has at least one element, its name.
    Exec(SystemTime, &'a [&'a CStr]),
    Help,
    Version,
}

impl<'a> Call<'a> {
    /// Arguments without the program's name. The error says in words what is wrong.
    pub fn parse(arguments: &'a [&'a CStr]) -> Result<Self, String> {
        let Some((name, rest)) = arguments.split_first() else {
            return Err(format!("say what to do\n{USAGE}"));
        };
        match (name.to_bytes(), rest) {
            (b"install", [file]) => Ok(Self::Install(Path::new(OsStr::from_bytes(file.to_bytes())))),
            (b"install", _) => Err("install: give one FILE to copy to, such as /stoker-gate/gate".to_owned()),
            (b"pulled", []) => Ok(Self::Pulled),
            (b"pulled", _) => Err("pulled: takes no arguments".to_owned()),
            (b"wait", [instant]) => Ok(Self::Wait(instant::parse(instant)?)),
            (b"wait", _) => Err(format!("wait: give one INSTANT, such as {}", instant::EXAMPLE)),
            (b"exec", [instant, dashes, command @ ..])
                if dashes.to_bytes() == b"--" && !command.is_empty() =>
            {
                Ok(Self::Exec(instant::parse(instant)?, command))
            }
            (b"exec", _) => Err(format!(
                "exec: give an INSTANT, two dashes and a COMMAND: exec {} -- date",
                instant::EXAMPLE
            )),
            (b"help" | b"--help" | b"-h", _) => Ok(Self::Help),
            (b"--version" | b"-V", _) => Ok(Self::Version),
            (other, _) => Err(format!("{:?} is nothing to do\n{USAGE}", String::from_utf8_lossy(other))),
        }
    }
}
