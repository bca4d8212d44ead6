//! The system's clock, a timer on it, and the signals that end a wait, as files that are polled together. All of them
//! close on exec.

use std::os::fd::AsFd;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use nix::time::clock_gettime;

use crate::wait::Clock;

/// What ends a wait.
const ENDING: [Signal; 4] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGHUP];

/// How often it is looked whether the second clock has ticked.
const TICK: Duration = Duration::from_millis(1);

/// While it lives, the signals that end a wait are blocked: so they are kept for it even when they are ignored or,
/// for a container's first process, have no default action. SIGPIPE is, too, as words whose reader has gone
/// must not end the gate.
pub struct Alarm {
    timer: TimerFd,
    /// With this, setting the clock cancels the timer and so wakes us.
    flags: TimerSetTimeFlags,
    signals: SignalFd,
    mask_found: SigSet,
}

impl Alarm {
    pub fn new() -> nix::Result<Self> {
        let signals: SigSet = ENDING.into_iter().collect();
        let mut blocked = signals;
        blocked.add(Signal::SIGPIPE);
        let mask_found = blocked.thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
        Ok(Self {
            timer: TimerFd::new(
                ClockId::CLOCK_REALTIME,
                TimerFlags::TFD_CLOEXEC.union(TimerFlags::TFD_NONBLOCK),
            )?,
            flags: TimerSetTimeFlags::TFD_TIMER_ABSTIME.union(TimerSetTimeFlags::TFD_TIMER_CANCEL_ON_SET),
            signals: SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC.union(SfdFlags::SFD_NONBLOCK))?,
            mask_found,
        })
    }

    /// Returns when one of the signals that end a wait has come.
    pub fn signalled(mut self) -> nix::Result<Signal> {
        loop {
            if let Some(signal) = self.signal()? {
                return Ok(signal);
            }
            match poll(&mut [PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Leaves signals as they were found. One that came since the last look acts as it would have without a gate.
    pub fn give_back(self) -> nix::Result<()> {
        // A SIGPIPE is of our own words, unless it was blocked all along.
        if !self.mask_found.contains(Signal::SIGPIPE) {
            self.signals.set_mask(&Signal::SIGPIPE.into())?;
            while self.signals.read_signal()?.is_some() {}
        }
        self.mask_found.thread_set_mask()
    }
}

impl Clock for Alarm {
    /// The system has a second clock, which time(2) and many runtimes read: it is set at each tick of the kernel, and
    /// so shows the instant up to 10 ms later. The work must see the instant by either.
    fn now(&self) -> SystemTime {
        let coarse = clock_gettime(nix::time::ClockId::CLOCK_REALTIME_COARSE).ok().and_then(|time| {
            let seconds = u64::try_from(time.tv_sec()).ok()?;
            UNIX_EPOCH.checked_add(Duration::new(seconds, u32::try_from(time.tv_nsec()).ok()?))
        });
        let fine = SystemTime::now();
        coarse.map_or(fine, |coarse| coarse.min(fine))
    }

    fn signal(&mut self) -> nix::Result<Option<Signal>> {
        let Some(came) = self.signals.read_signal()? else { return Ok(None) };
        Ok(ENDING.into_iter().find(|signal| *signal as u32 == came.ssi_signo))
    }

    fn sleep_until(&mut self, instant: SystemTime) -> nix::Result<()> {
        // The epoch's first nanosecond stands for what is before: a timer at 0 would never fire.
        let since_epoch = instant.duration_since(UNIX_EPOCH).unwrap_or_default();
        // Where only the second clock is behind, its next tick is near.
        let soon = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default() + TICK;
        let deadline = if soon > since_epoch + TICK { soon } else { since_epoch };
        let deadline = TimeSpec::from_duration(deadline.max(Duration::from_nanos(1)));
        match self.timer.set(Expiration::OneShot(deadline), self.flags) {
            Ok(()) => {}
            // The clock was set since the last look, which had to be told.
            Err(Errno::ECANCELED) => return Ok(()),
            // Sandboxes that stand in for the kernel may not know of cancelling. An absolute timer follows the
            // clock there, too, when it is set.
            Err(Errno::EINVAL) if self.flags.contains(TimerSetTimeFlags::TFD_TIMER_CANCEL_ON_SET) => {
                self.flags.remove(TimerSetTimeFlags::TFD_TIMER_CANCEL_ON_SET);
                return Ok(());
            }
            Err(error) => return Err(error),
        }
        let mut files = [
            PollFd::new(self.timer.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut files, PollTimeout::NONE) {
            // Setting the timer anew also forgets that it has fired.
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(error) => Err(error),
        }
    }
}
