//! Copying the gate to where the workload's container finds it.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// Anybody may execute it: the workload's container may run as another user.
const MODE: u32 = 0o755;

/// Copies the running program to `to`, which is complete or what it was before at every moment. The folder must be
/// there. Returns the exit code 0.
pub fn install(to: &Path) -> Result<i32, String> {
    let Some(name) = to.file_name() else {
        return Err(format!("install: {to:?} names no file; give one, such as /stoker-gate/gate"));
    };
    let mut new_name = OsString::from(".");
    new_name.push(name);
    new_name.push(format!(".{}", std::process::id()));
    let new = to.with_file_name(new_name);
    let copied = copy(&new).and_then(|()| fs::rename(&new, to));
    copied.map(|()| 0).map_err(|error| {
        let _ = fs::remove_file(&new);
        format!("install: cannot write {to:?}: {error}")
    })
}

/// To a file that is not there; one that is was left by an earlier run that was killed, and goes.
fn copy(new: &Path) -> io::Result<()> {
    let mut from = File::open("/proc/self/exe")?;
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(MODE);
    let mut to = match options.open(new) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            fs::remove_file(new)?;
            options.open(new)?
        }
        opened => opened?,
    };
    io::copy(&mut from, &mut to)?;
    // The umask may have taken bits away.
    to.set_permissions(Permissions::from_mode(MODE))
}
