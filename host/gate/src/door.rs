//! The door: a link in the volume of the program, which the containers that are held mount.

use std::ffi::OsStr;
use std::os::unix::fs::symlink;
use std::path::Path;

use crate::install::replace;

/// Closes it: a link to itself leads nowhere, and cannot be mounted. Its folder must be there.
pub fn close(door: &Path) -> Result<(), String> {
    point(door, door.file_name())
}

/// Opens it: a link to the folder that it lies in. Whoever opens it once more changes nothing.
pub fn open(door: &Path) -> Result<(), String> {
    point(door, Some(OsStr::new(".")))
}

/// At every moment it is what it was before or what it shall be.
fn point(door: &Path, to: Option<&OsStr>) -> Result<(), String> {
    let (Some(to), Some(_)) = (to, door.file_name()) else {
        return Err(format!("{door:?} names no door; give a path such as /stoker-gate/door"));
    };
    replace(door, |new| symlink(to, new)).map_err(|error| format!("cannot write the door {door:?}: {error}"))
}
