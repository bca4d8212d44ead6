//! The command line. Arguments are bytes, as the kernel hands them over: only what the gate itself reads must
//! be text, the command's need not be.

use std::ffi::{CStr, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::SystemTime;

use crate::instant;

pub const USAGE: &str = "\
usage: stoker-gate install FILE [DOOR]
       stoker-gate pulled
       stoker-gate wait INSTANT [DOOR]
       stoker-gate hold INSTANT DOOR
       stoker-gate exec INSTANT -- COMMAND [ARG...]";

/// What is asked for.
#[derive(Debug, PartialEq)]
pub enum Call<'a> {
    /// To a file; and a door to close.
    Install(&'a Path, Option<&'a Path>),
    Pulled,
    /// And a door to open.
    Wait(SystemTime, Option<&'a Path>),
    Hold(SystemTime, &'a Path),
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
            (b"install", [file]) => Ok(Self::Install(path(file), None)),
            (b"install", [file, door]) => Ok(Self::Install(path(file), Some(path(door)))),
            (b"install", _) => Err(
                "install: give a FILE to copy to, such as /stoker-gate/gate, and maybe a DOOR to close, such as /stoker-gate/door"
                    .to_owned(),
            ),
            (b"pulled", []) => Ok(Self::Pulled),
            (b"pulled", _) => Err("pulled: takes no arguments".to_owned()),
            (b"wait", [instant]) => Ok(Self::Wait(instant::parse(instant)?, None)),
            (b"wait", [instant, door]) => Ok(Self::Wait(instant::parse(instant)?, Some(path(door)))),
            (b"wait", _) => {
                Err(format!("wait: give an INSTANT, such as {}, and maybe a DOOR to open", instant::EXAMPLE))
            }
            (b"hold", [instant, door]) => Ok(Self::Hold(instant::parse(instant)?, path(door))),
            (b"hold", _) => {
                Err(format!("hold: give an INSTANT and a DOOR: hold {} /stoker-gate/door", instant::EXAMPLE))
            }
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

fn path(argument: &CStr) -> &Path {
    Path::new(OsStr::from_bytes(argument.to_bytes()))
}
