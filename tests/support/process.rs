//! A child process with its output kept by line, ended by its own id when dropped.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use tunnelhead::telemetry::clock;

/// Why a wait for a line ended without it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NoLine {
    /// The time was up.
    Deadline,
    /// The process closed its output.
    Ended,
}

/// A running child and everything it has printed.
pub(crate) struct Process {
    name: String,
    child: Child,
    log: Arc<Log>,
}

#[derive(Default)]
struct Log {
    state: Mutex<LogState>,
    changed: Condvar,
}

#[derive(Default)]
struct LogState {
    lines: Vec<String>,
    streams_closed: usize,
}

impl Process {
    /// Starts `command` with its standard output and error read into the log.
    pub(crate) fn spawn(name: &str, command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("can't start {name} ({command:?}): {error}"));
        let log = Arc::new(Log::default());
        let out = child.stdout.take().expect("standard output is a pipe");
        let err = child.stderr.take().expect("standard error is a pipe");
        follow(out, Arc::clone(&log));
        follow(err, Arc::clone(&log));
        Self { name: name.to_owned(), child, log }
    }

    /// The process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// The number of lines printed so far: a place to wait from.
    pub(crate) fn mark(&self) -> usize {
        self.log.lock().lines.len()
    }

    /// Waits for the first line at or after `from` that `wanted` accepts; returns the place behind
    /// it and the line.
    pub(crate) fn line_after(
        &self,
        from: usize,
        limit: Duration,
        mut wanted: impl FnMut(&str) -> bool,
    ) -> Result<(usize, String), NoLine> {
        let end = clock::now() + limit;
        let mut next = from;
        let mut state = self.log.lock();
        loop {
            while let Some(line) = state.lines.get(next) {
                next += 1;
                if wanted(line) {
                    return Ok((next, line.clone()));
                }
            }
            if state.streams_closed == 2 {
                return Err(NoLine::Ended);
            }
            let left = end.saturating_duration_since(clock::now());
            if left.is_zero() {
                return Err(NoLine::Deadline);
            }
            state = self.log.changed.wait_timeout(state, left).expect("log lock").0;
        }
    }

    /// Waits for a line that contains `text`; panics with the log if it does not come.
    pub(crate) fn expect_line(&self, from: usize, limit: Duration, text: &str) -> usize {
        match self.line_after(from, limit, |line| line.contains(text)) {
            Ok((next, _)) => next,
            Err(why) => panic!("{}: no line with {text:?} ({why:?})\n{}", self.name, self.tail(60)),
        }
    }

    /// Counts the lines at or after `from` that contain `text`.
    pub(crate) fn count(&self, from: usize, text: &str) -> usize {
        let state = self.log.lock();
        state.lines.iter().skip(from).filter(|line| line.contains(text)).count()
    }

    /// The lines printed so far that contain `text`.
    pub(crate) fn lines_with(&self, text: &str) -> Vec<String> {
        let state = self.log.lock();
        state.lines.iter().filter(|line| line.contains(text)).cloned().collect()
    }

    /// Everything printed so far.
    pub(crate) fn text(&self) -> String {
        self.log.lock().lines.join("\n")
    }

    /// The last `count` lines, for a failure message.
    pub(crate) fn tail(&self, count: usize) -> String {
        let state = self.log.lock();
        let skipped = state.lines.len().saturating_sub(count);
        format!("--- end of the log of {} ---\n{}", self.name, state.lines[skipped..].join("\n"))
    }

    /// Whether it has closed its output, as a process that ends does.
    pub(crate) fn ended(&self) -> bool {
        self.log.lock().streams_closed == 2
    }

    /// Waits for the end of the process.
    pub(crate) fn exit(&mut self, limit: Duration) -> Option<ExitStatus> {
        let end = clock::now() + limit;
        let mut state = self.log.lock();
        while state.streams_closed < 2 {
            let left = end.saturating_duration_since(clock::now());
            if left.is_zero() {
                return None;
            }
            state = self.log.changed.wait_timeout(state, left).expect("log lock").0;
        }
        drop(state);
        self.child.wait().ok()
    }

    /// Sends a signal by name (`TERM`, `KILL`, `USR1`).
    pub(crate) fn signal(&self, name: &str) {
        // The shell's own `kill`: no raw system call in a test.
        let script = format!("kill -{name} {}", self.id());
        let _ = Command::new("sh").args(["-c", &script]).status();
    }

    /// Ends the process at once and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() && std::env::var_os("TUNNELHEAD_TEST_LOGS").is_some() {
            eprintln!("{}", self.tail(400));
        }
    }
}

impl Log {
    fn lock(&self) -> MutexGuard<'_, LogState> {
        self.state.lock().expect("log lock")
    }
}

fn follow(stream: impl Read + Send + 'static, log: Arc<Log>) {
    std::thread::spawn(move || {
        let mut reader = BufReader::new(stream);
        let mut line = Vec::new();
        while matches!(reader.read_until(b'\n', &mut line), Ok(read) if read > 0) {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            log.lock().lines.push(text);
            log.changed.notify_all();
            line.clear();
        }
        log.lock().streams_closed += 1;
        log.changed.notify_all();
    });
}
