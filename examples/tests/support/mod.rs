//! What the tests of the server share: its process, its folder, and a client.
#![allow(dead_code, reason = "each test file uses its own part")]
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "clippy knows only the functions that are marked as tests"
)]

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

/// A folder in which nothing can reach the machine's own files.
pub(crate) struct Folder(TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        let folder = TempDir::new().unwrap();
        for name in ["home", "tmp", "scripts", "logs"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        }
        Self(folder)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    /// Returns the server's command, with an environment that is only the folder's.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_automation-server"));
        command
            .current_dir(self.0.path())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("HOME", self.path("home"))
            .env("TMPDIR", self.path("tmp"))
            .env("AUTOMATION_LOG_ROOT", self.path("tmp"))
            .env("AUTOMATION_PORT", "0")
            .env("AUTOMATION_RATE_LIMIT", "off")
            .env("AUTOMATION_LOG", "warn")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if let Some(python) = python() {
            command.env("PYTHON_PATH", python);
        }
        command
    }

    /// Returns the server's command behind a limit of open files, given as `ulimit` takes it.
    pub(crate) fn with_open_files(&self, limits: &str) -> Command {
        let plain = self.command();
        let mut command = Command::new("sh");
        command
            .args(["-c", &format!("{limits} && exec \"$0\"")])
            .arg(plain.get_program())
            .current_dir(self.0.path())
            .env_clear()
            .envs(
                plain
                    .get_envs()
                    .filter_map(|(name, value)| Some((name, value?))),
            )
            .stdout(Stdio::piped());
        command
    }

    /// Starts a server and waits until it listens.
    pub(crate) fn start(&self, configure: impl FnOnce(&mut Command)) -> Server {
        let mut command = self.command();
        command.stderr(Stdio::inherit());
        configure(&mut command);
        let mut child = command.spawn().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut first = String::new();
        output.read_line(&mut first).unwrap();
        let Some((_, address)) = first.trim().split_once("listens on http://") else {
            let status = child.wait().unwrap();
            panic!("the server did not start: {status}, {first:?}");
        };
        Server {
            base: format!("http://{address}"),
            child,
            output,
        }
    }
}

/// The Python that was built against, where the build says so; else the one in `PATH`.
fn python() -> Option<PathBuf> {
    option_env!("PYO3_PYTHON")
        .map(PathBuf::from)
        .filter(|path| path.exists())
}

/// The scripts of this repository.
pub(crate) fn repository_scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts")
}

/// A running server; killed when it is dropped.
pub(crate) struct Server {
    base: String,
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    pub(crate) fn client(&self) -> Client {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(60)));
        Client {
            agent: config.build().into(),
            base: self.base.clone(),
        }
    }

    pub(crate) fn address(&self) -> &str {
        self.base.trim_start_matches("http://")
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().cast_signed()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Ends the process as a power cut would: nothing of it runs any more.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Takes the log that nobody reads, of a server whose stderr is a pipe.
    pub(crate) fn take_stderr(&mut self) -> ChildStderr {
        self.child.stderr.take().expect("stderr is a pipe")
    }

    /// Waits for the end; returns how it ended and the rest of what it printed.
    pub(crate) fn wait(mut self, limit: Duration) -> (ExitStatus, String) {
        let began = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(began.elapsed() < limit, "the server does not end");
            std::thread::sleep(Duration::from_millis(10));
        };
        let mut rest = String::new();
        self.output.read_to_string(&mut rest).unwrap();
        (status, rest)
    }
}

/// An HTTP client; clones share their connections.
#[derive(Clone)]
pub(crate) struct Client {
    agent: ureq::Agent,
    base: String,
}

/// A status and a JSON body.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Value,
}

impl Client {
    /// Returns the answer, or that there was none.
    pub(crate) fn try_post(&self, path: &str, body: &Value) -> Result<Answer, ureq::Error> {
        self.send(&format!("/api/automation/{path}"), body)
    }

    fn send(&self, path: &str, body: &Value) -> Result<Answer, ureq::Error> {
        let request = self.agent.post(format!("{}{path}", self.base));
        let response = request
            .content_type("application/json")
            .send(body.to_string())?;
        read(response)
    }

    /// Posts to a whole path.
    pub(crate) fn post_to(&self, path: &str, body: &Value) -> Answer {
        self.send(path, body).unwrap()
    }

    /// Returns an answer that is a text.
    pub(crate) fn text(&self, path: &str) -> String {
        let request = self.agent.get(format!("{}{path}", self.base));
        let mut response = request.call().unwrap();
        assert_eq!(response.status(), 200);
        response.body_mut().read_to_string().unwrap()
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Answer {
        self.try_post(path, body).unwrap()
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        read(
            self.agent
                .get(format!("{}{path}", self.base))
                .call()
                .unwrap(),
        )
        .unwrap()
    }
}

fn read(mut response: ureq::http::Response<ureq::Body>) -> Result<Answer, ureq::Error> {
    let status = response.status().as_u16();
    let text = response.body_mut().read_to_string()?;
    let body = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    Ok(Answer { status, body })
}

impl Answer {
    /// Returns `data` of an answer that is not an error.
    pub(crate) fn data(&self) -> &Value {
        assert_eq!(
            (self.status, &self.body["success"]),
            (200, &Value::Bool(true)),
            "{self:?}"
        );
        &self.body["data"]
    }

    pub(crate) fn message(&self) -> &str {
        self.body["message"].as_str().expect("a message is a text")
    }

    /// Checks the one body that every error has.
    pub(crate) fn error(&self, status: u16, code: &str) {
        assert_eq!(
            (self.status, &self.body["code"]),
            (status, &Value::from(code)),
            "{self:?}"
        );
        assert_eq!(
            (&self.body["success"], &self.body["status"]),
            (&Value::Bool(false), &Value::from(status))
        );
        for field in ["error", "message", "type", "title", "detail", "request_id"] {
            assert!(
                self.body[field]
                    .as_str()
                    .is_some_and(|text| !text.is_empty()),
                "{field}: {self:?}"
            );
        }
    }
}
