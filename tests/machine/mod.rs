//! Machines with a control socket, for the tests of whole machines.

use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A running machine and its socket.
pub struct Machine {
    pub child: Child,
    directory: tempfile::TempDir,
}

impl Machine {
    /// Starts one with a control socket; its images stay as they are.
    pub fn start(options: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("ctl");
        let child = Command::new(env!("CARGO_BIN_EXE_ring3"))
            .args(["run", "--snapshot", "--control"])
            .arg(format!("unix:{}", socket.display()))
            .args(options)
            .args(if options.contains(&"--serial") {
                &[][..]
            } else {
                &["--serial", "none"]
            })
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let machine = Self { child, directory };
        let start = Instant::now();
        while UnixStream::connect(&socket).is_err() {
            // Fetching the firmware for the first time takes a while.
            assert!(
                start.elapsed() < Duration::from_secs(120),
                "no control socket"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        machine
    }

    /// A file of its own directory; the socket is `ctl`.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// `ring3 ctl`: its output, or its error as `Err`.
    pub fn try_ctl(&self, words: &[&str]) -> Result<String, String> {
        let output = Command::new(env!("CARGO_BIN_EXE_ring3"))
            .arg("ctl")
            .arg(self.path("ctl"))
            .args(words)
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() {
            Ok(text(&output.stdout))
        } else {
            Err(text(&output.stderr))
        }
    }

    /// `ring3 ctl`, which must succeed.
    pub fn ctl(&self, words: &[&str]) -> String {
        self.try_ctl(words)
            .unwrap_or_else(|e| panic!("{words:?}: {e}"))
    }

    /// Waits for a text on the screen.
    pub fn wait(&self, regex: &str) -> String {
        self.ctl(&["wait-text", regex, "--timeout", "60"])
    }

    /// The status that it ends with, if it does.
    pub fn exit_code(&mut self) -> Option<i32> {
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(10) {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        None
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
