//! Copying the gate to where the workload's container finds it.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use crate::door;

/// Anybody may execute it: the workload's container may run as another user.
const MODE: u32 = 0o755;

/// Closes the door, if there is one, and copies the running program to `to`, which is complete or what it was before at
/// every moment. The folders must be there.
pub fn install(to: &Path, door: Option<&Path>) -> Result<(), String> {
    if to.file_name().is_none() {
        return Err(format!("install: {to:?} names no file; give one, such as /stoker-gate/gate"));
    }
    if let Some(door) = door {
        door::close(door).map_err(|what| format!("install: {what}"))?;
    }
    replace(to, copy).map_err(|error| format!("install: cannot write {to:?}: {error}"))
}

/// Puts what `make` makes at a path of its own in the place of `to`, at once. What `make` finds there was left by an earlier
/// run that was killed, and goes.
pub fn replace(to: &Path, make: impl Fn(&Path) -> io::Result<()>) -> io::Result<()> {
    let mut name = OsString::from(".");
    name.push(to.file_name().unwrap_or_default());
    name.push(format!(".{}", std::process::id()));
    let new = to.with_file_name(name);
    let made = match make(&new) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            fs::remove_file(&new).and_then(|()| make(&new))
        }
        made => made,
    };
    made.and_then(|()| fs::rename(&new, to)).inspect_err(|_| {
        let _ = fs::remove_file(&new);
    })
}

/// To a file that is not there.
fn copy(new: &Path) -> io::Result<()> {
    let mut from = File::open("/proc/self/exe")?;
    let mut to = OpenOptions::new().write(true).create_new(true).mode(MODE).open(new)?;
    io::copy(&mut from, &mut to)?;
    // The umask may have taken bits away.
    to.set_permissions(Permissions::from_mode(MODE))
}
