//! A Redis for one test, on a free port of the loopback device; it ends with the test.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Says whether this machine has one, and if not, what to do.
pub fn is_installed() -> bool {
    let there = Command::new("redis-server").arg("--version").output().is_ok_and(|o| o.status.success());
    if !there {
        println!("skipped: there is no redis-server here; run hack/setup.sh packages as root");
    }
    there
}

/// A running server.
pub struct Redis {
    child: Option<Child>,
    pub port: u16,
    inside: Vec<String>,
    options: Vec<String>,
    /// What redis-cli needs to talk to it.
    pub talk: Vec<String>,
    folder: PathBuf,
}

impl Redis {
    /// Starts one with options of its own, by a command that runs another where it is wanted (or by none), and
    /// waits until it answers `talk`, which are redis-cli's options beside the port.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start(inside: &[String], options: &[&str], talk: &[&str]) -> Self {
        let own = |list: &[&str]| list.iter().map(|o| (*o).to_owned()).collect::<Vec<_>>();
        for _ in 0..20 {
            // Another program may take the port before the server does; then another one is tried.
            let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr());
            let port = port.unwrap_or_else(|error| panic!("no free port: {error}")).port();
            let folder = std::env::temp_dir().join(format!("stoker-redis-{}-{port}", std::process::id()));
            let (inside, options, talk) = (inside.to_vec(), own(options), own(talk));
            let mut redis = Self { child: None, port, inside, options, talk, folder };
            if redis.run() {
                return redis;
            }
        }
        panic!("redis-server does not start");
    }

    /// Starts it again on the same port. False = it ended before it answered.
    pub fn run(&mut self) -> bool {
        std::fs::create_dir_all(&self.folder).unwrap_or_else(|error| panic!("{error}"));
        let mut line = self.inside.clone();
        line.push("redis-server".to_owned());
        let secure = self.options.iter().any(|o| o == "--tls-port");
        if !secure {
            line.extend(["--port".to_owned(), self.port.to_string()]);
        }
        line.extend(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir"].map(str::to_owned));
        line.push(self.folder.display().to_string());
        let port = self.port.to_string();
        line.extend(self.options.iter().map(|o| o.replace("PORT", &port)));
        let child = Command::new(&line[0])
            .args(&line[1..])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let child = self.child.insert(child.unwrap_or_else(|error| panic!("{line:?}: {error}")));
        let pid = child.id();
        let began = Instant::now();
        loop {
            if let Ok(Some(_)) = self.child.as_mut().map_or(Ok(None), Child::try_wait) {
                return false;
            }
            if self.says(&["PING"]).as_deref() == Some("PONG") {
                return true;
            }
            assert!(began.elapsed() < Duration::from_secs(60), "redis-server {pid} does not answer");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// What redis-cli is told, if it gets an answer.
    pub fn says(&self, command: &[&str]) -> Option<String> {
        let mut line = self.inside.clone();
        line.extend(["redis-cli", "-p"].map(str::to_owned));
        line.push(self.port.to_string());
        line.extend(self.talk.iter().cloned());
        line.extend(command.iter().map(|c| (*c).to_owned()));
        let output = Command::new(&line[0]).args(&line[1..]).stdin(Stdio::null()).output().ok()?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// Does a command.
    ///
    /// # Panics
    /// When Redis does not answer.
    pub fn tell(&self, command: &[&str]) -> String {
        let said = self.says(command).unwrap_or_default();
        assert!(!said.is_empty() && !said.starts_with("Could not"), "{command:?}: {said}");
        said
    }

    /// How often a command was carried out.
    pub fn calls(&self, command: &str) -> u64 {
        let all = self.says(&["INFO", "commandstats"]).unwrap_or_default();
        let line = all.lines().find_map(|l| l.strip_prefix(&format!("cmdstat_{command}:calls=")));
        line.and_then(|l| l.split(',').next()).and_then(|n| n.parse().ok()).unwrap_or(0)
    }

    /// Sends it a signal, such as STOP.
    pub fn signal(&self, signal: &str) {
        if let Some(child) = &self.child {
            Command::new("kill").args([&format!("-{signal}"), &child.id().to_string()]).status().ok();
        }
    }

    /// Kills it at once; what it knew is lost.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // An error means that it has ended already.
            child.kill().ok();
            child.wait().ok();
        }
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
        std::fs::remove_dir_all(&self.folder).ok();
    }
}
