//! Whether somebody waits for the instant in front of a door. Who waits there locks the door's folder, and who holds the
//! door looks for the lock: it goes with the process, however that ends.

use std::fs::{File, TryLockError};
use std::path::Path;
use std::time::{Duration, SystemTime};

use nix::errno::Errno;
use nix::sys::signal::Signal;

use crate::alarm::Alarm;
use crate::wait::Clock;

/// How often whoever holds the door looks.
const LOOK: Duration = Duration::from_secs(1);

/// What a wait fails with when nobody is there any more who was.
pub const FORSAKEN: Errno = Errno::EOWNERDEAD;

fn folder(door: &Path) -> Option<File> {
    File::open(door.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))).ok()
}

/// Tells that somebody waits, for as long as what it returns lives. A file system that has no locks tells nobody.
pub fn tell(door: &Path) -> Option<File> {
    let folder = folder(door)?;
    // Whoever looks holds it for a moment only.
    folder.lock_shared().ok().map(|()| folder)
}

/// A clock whose sleep fails once somebody who waited in front of the door has gone, and the instant has not come.
pub struct Attended<'a> {
    alarm: &'a mut Alarm,
    folder: Option<File>,
    seen: bool,
}

impl<'a> Attended<'a> {
    pub fn new(alarm: &'a mut Alarm, door: &Path) -> Self {
        Self { alarm, folder: folder(door), seen: false }
    }

    fn forsaken(&mut self) -> bool {
        let Some(folder) = &self.folder else { return false };
        match folder.try_lock() {
            Ok(()) => {
                let _ = folder.unlock();
                self.seen
            }
            Err(TryLockError::WouldBlock) => {
                self.seen = true;
                false
            }
            Err(TryLockError::Error(_)) => false,
        }
    }
}

impl Clock for Attended<'_> {
    fn now(&self) -> SystemTime {
        self.alarm.now()
    }

    fn signal(&mut self) -> nix::Result<Option<Signal>> {
        self.alarm.signal()
    }

    fn sleep_until(&mut self, instant: SystemTime) -> nix::Result<()> {
        self.alarm.sleep_until(instant.min(SystemTime::now() + LOOK))?;
        // Who waited has gone rightly, if it has, once the instant is there.
        if self.forsaken() && self.now() < instant {
            return Err(FORSAKEN);
        }
        Ok(())
    }
}
