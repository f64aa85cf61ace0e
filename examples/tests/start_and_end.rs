//! How the server starts, what it refuses, and how it ends.
#![expect(
    clippy::unwrap_used,
    reason = "clippy knows only the functions that are marked as tests"
)]

mod support;

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::ffi::OsStrExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;
use support::Folder;

const SLEEPING: &str = r#"# /// script
# [tool.automation]
# description = "Sleeps"
# [tool.automation.parameters.seconds]
# type = "number"
# required = true
# ///
import json, sys, time
time.sleep(json.loads(sys.argv[1])["seconds"])
print(json.dumps({"slept": True}))
"#;

/// Runs a server that is expected not to start; returns its exit code and what it says.
fn refused(folder: &Folder, configure: impl FnOnce(&mut Command)) -> (Option<i32>, String) {
    let mut command = folder.command();
    configure(&mut command);
    let output = command.output().unwrap();
    (
        output.status.code(),
        String::from_utf8(output.stderr).unwrap(),
    )
}

/// Returns what the log files say.
fn log_of(folder: &Folder) -> String {
    let files = folder.path("logs").read_dir().unwrap();
    files
        .map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap())
        .collect()
}

#[test]
fn a_wrong_value_ends_the_start_with_a_sentence() {
    let folder = Folder::new();
    let (code, text) = refused(&folder, |command| {
        command
            .env("AUTOMATION_PORT", "x")
            .env("AUTOMATION_HOST", "0.0.0.0")
            .args(["--rate-limit", "never"]);
    });
    assert_eq!(code, Some(2), "{text}");
    for part in [
        "AUTOMATION_PORT is \"x\" (from the environment)",
        "AUTOMATION_HOST is \"0.0.0.0\" (from the environment)",
        "AUTOMATION_RATE_LIMIT is \"never\" (given by --rate-limit)",
    ] {
        assert!(text.contains(part), "{text}");
    }
    folder.write(".env", "NODE_ENV=staging\n");
    let (code, text) = refused(&folder, |_| {});
    assert_eq!(code, Some(2));
    assert!(
        text.contains("NODE_ENV is \"staging\" (from .env), "),
        "{text}"
    );
}

#[test]
fn what_is_not_there_ends_the_start_with_a_sentence() {
    let folder = Folder::new();
    for (variable, value) in [
        ("SCRIPTS_PATH", "/nowhere/scripts"),
        ("PYTHON_PATH", "/nowhere/python3"),
        ("DATABASE_URL", "sqlite:///nowhere/x.db"),
        ("LOGS_PATH", "/proc/nowhere"),
    ] {
        let (code, text) = refused(&folder, |command| {
            command.env(variable, value);
        });
        assert_eq!(code, Some(1), "{text}");
        assert!(
            text.contains(variable) && text.contains("nowhere"),
            "{text}"
        );
    }
}

#[test]
fn a_port_in_use_is_said_to_be_so() {
    let folder = Folder::new();
    let server = folder.start(|_| {});
    let (_, port) = server.address().rsplit_once(':').unwrap();
    let (code, text) = refused(&folder, |command| {
        command.args(["--port", port]);
    });
    assert_eq!(code, Some(1), "{text}");
    assert!(
        text.contains(server.address()) && text.contains("AUTOMATION_PORT"),
        "{text}"
    );
}

#[test]
fn localhost_is_both_of_its_addresses() {
    // Where there is no IPv6 there is nothing to show.
    let Ok(taken) = TcpListener::bind("[::1]:0") else {
        return;
    };
    let folder = Folder::new();
    let server = folder.start(|_| {});
    let (_, port) = server.address().rsplit_once(':').unwrap();
    TcpStream::connect(format!("[::1]:{port}")).unwrap();
    let address = taken.local_addr().unwrap();
    let (code, text) = refused(&folder, |command| {
        command.args(["--port", &address.port().to_string()]);
    });
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains(&address.to_string()), "{text}");
}

#[test]
fn it_tells_what_it_serves() {
    let folder = Folder::new();
    folder.write("scripts/sleeping.py", SLEEPING);
    folder.write("scripts/broken.py", "def f(:\n");
    folder.write(
        ".env",
        "AUTOMATION_SECRET_TOKEN=hunter2-hunter2\nFRONTEND_URL=http://desk.example\n",
    );
    let server = folder.start(|command| {
        command.env("AUTOMATION_LOG", "info");
    });
    let address = format!("address={} ", server.address());
    server.signal(Signal::TERM);
    let (status, text) = server.wait(Duration::from_secs(20));
    assert_eq!(status.code(), Some(0));
    for part in [
        "Python 3.",
        "SQLite file automation.db",
        "sleeping.py (manual only)",
        "broken.py is invalid",
        "broken.py:1",
        "POST  /api/automation/execute",
        "GET   /health",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains("hunter2"), "{text}");
    let log = log_of(&folder);
    assert!(log.contains(&address), "{log}");
}

#[test]
fn runs_end_within_the_grace_and_are_answered() {
    for signal in [Signal::TERM, Signal::INT] {
        let folder = Folder::new();
        folder.write("scripts/sleeping.py", SLEEPING);
        let server = folder.start(|_| {});
        let client = server.client();
        let body = json!({"script_name": "sleeping.py", "parameters": {"seconds": 1}});
        let run = std::thread::spawn(move || client.post("manual", &body));
        std::thread::sleep(Duration::from_millis(400));
        server.signal(signal);
        let answer = run.join().unwrap();
        assert_eq!(answer.data()["parsed_output"], json!({"slept": true}));
        assert_eq!(
            server.wait(Duration::from_secs(10)).0.code(),
            Some(0),
            "{signal:?}"
        );
    }
}

#[test]
fn runs_beyond_the_grace_are_ended_and_recorded() {
    let folder = Folder::new();
    folder.write("scripts/sleeping.py", SLEEPING);
    let server = folder.start(|command| {
        command.env("AUTOMATION_SHUTDOWN_SECONDS", "1");
    });
    let client = server.client();
    let body =
        json!({"script_name": "sleeping.py", "parameters": {"seconds": 120}, "ticket_id": "T-1"});
    let run = std::thread::spawn(move || client.post("manual", &body));
    std::thread::sleep(Duration::from_millis(400));
    let began = Instant::now();
    server.signal(Signal::TERM);
    let answer = run.join().unwrap();
    assert_eq!(
        (&answer.data()["success"], &answer.data()["reason"]),
        (&json!(false), &json!("shutdown")),
        "{answer:?}"
    );
    assert_eq!(server.wait(Duration::from_secs(20)).0.code(), Some(0));
    assert!(
        began.elapsed() < Duration::from_secs(15),
        "{:?}",
        began.elapsed()
    );
    let server = folder.start(|_| {});
    let rows = server.client().get("/api/automation/logs/T-1");
    assert_eq!(rows.data()[0]["reason"], "shutdown");
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let folder = Folder::new();
    folder.write("scripts/sleeping.py", SLEEPING);
    let server = folder.start(|_| {});
    let client = server.client();
    let body =
        json!({"script_name": "sleeping.py", "parameters": {"seconds": 120}, "ticket_id": "T-1"});
    let run = std::thread::spawn(move || client.try_post("manual", &body).is_err());
    std::thread::sleep(Duration::from_millis(400));
    server.signal(Signal::TERM);
    std::thread::sleep(Duration::from_millis(200));
    let began = Instant::now();
    server.signal(Signal::TERM);
    assert_eq!(server.wait(Duration::from_secs(5)).0.code(), Some(143));
    assert!(
        began.elapsed() < Duration::from_secs(2),
        "{:?}",
        began.elapsed()
    );
    assert!(run.join().unwrap(), "the open request has no answer");
    let server = folder.start(|_| {});
    std::thread::sleep(Duration::from_millis(500));
    let rows = server.client().get("/api/automation/logs/T-1");
    assert_eq!(
        (&rows.data()[0]["status"], &rows.data()[0]["reason"]),
        (&json!("failed"), &json!("orphaned"))
    );
}

#[test]
fn the_same_database_is_not_opened_twice() {
    let folder = Folder::new();
    let _server = folder.start(|_| {});
    let (code, text) = refused(&folder, |_| {});
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("DATABASE_URL"), "{text}");
}

#[test]
fn a_log_that_nobody_reads_holds_nothing() {
    let folder = Folder::new();
    let mut server = folder.start(|command| {
        command.env("AUTOMATION_LOG", "info").stderr(Stdio::piped());
    });
    let _unread = server.take_stderr();
    let client = server.client();
    for _ in 0..1000 {
        assert_eq!(client.get("/health").status, 200);
    }
    server.signal(Signal::TERM);
    assert_eq!(server.wait(Duration::from_secs(10)).0.code(), Some(0));
    let log = log_of(&folder);
    assert_eq!(log.matches("answered").count(), 1000);
    assert!(log.contains("shutting down"), "the last lines are written");
}

#[test]
fn a_terminal_that_is_gone_does_not_stop_the_start() {
    let folder = Folder::new();
    let full = std::fs::OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let mut command = folder.command();
    command.stdout(full).stderr(Stdio::null());
    let mut child = command.env("AUTOMATION_LOG", "info").spawn().unwrap();
    let began = Instant::now();
    let listens = || log_of(&folder).contains("listening");
    while !listens() && began.elapsed() < Duration::from_secs(20) {
        assert!(child.try_wait().unwrap().is_none(), "it ended");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(listens());
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn an_open_server_says_so() {
    for (host, warned) in [("0.0.0.0", true), ("127.0.0.1", false)] {
        let folder = Folder::new();
        let server = folder.start(|command| {
            command.args(["--host", host, "--auth", "none"]);
        });
        server.signal(Signal::TERM);
        server.wait(Duration::from_secs(20));
        let log = log_of(&folder);
        assert_eq!(log.contains("AUTOMATION_AUTH is none"), warned, "{log}");
    }
}

#[test]
fn without_a_python_it_takes_the_one_it_was_built_with() {
    for unset in [true, false] {
        let folder = Folder::new();
        let server = folder.start(|command| {
            command.env("PATH", "/nowhere").env("PYTHON_PATH", "");
            if unset {
                command.env_remove("PYTHON_PATH");
            }
        });
        let check = server.client().get("/api/automation/python/check");
        assert_eq!(check.data()["available"], true);
    }
}

#[test]
fn a_file_of_several_programs_is_read() {
    let folder = Folder::new();
    folder.write(
        ".env",
        "\u{feff}NODE_ENV=test\nMAIL_FROM=IT Support <x@y>\nAUTOMATION_PROT=1\n",
    );
    let server = folder.start(|_| {});
    let health = server.client().get("/health");
    assert_eq!(health.body["environment"], "test");
    server.signal(Signal::TERM);
    server.wait(Duration::from_secs(20));
    assert!(log_of(&folder).contains("AUTOMATION_PROT is no variable"));
    folder.write(".env", "A=1\nAUTOMATION_HOST=\"::1\n");
    let (code, text) = refused(&folder, |command| {
        command.env("NODE_ENV", OsStr::from_bytes(b"test\xff"));
    });
    assert_eq!(code, Some(2), "{text}");
    for part in ["AUTOMATION_HOST in line 2 of .env", "NODE_ENV is not UTF-8"] {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn the_log_does_not_grow_by_refusals_and_long_paths() {
    let folder = Folder::new();
    let server = folder.start(|command| {
        command.env("AUTOMATION_LOG", "info");
    });
    let path = "x".repeat(20_000);
    for host in ["localhost", "evil.example"] {
        let request = format!("GET /{path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
        let mut stream = TcpStream::connect(server.address()).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        stream.read_to_end(&mut Vec::new()).unwrap();
    }
    server.signal(Signal::TERM);
    server.wait(Duration::from_secs(20));
    let log = log_of(&folder);
    assert!(log.contains("status=404") && log.len() < 4000, "{log}");
    assert!(!log.contains("status=403"), "{log}");
}

#[test]
fn the_database_of_a_running_server_is_copied_by_a_command() {
    let folder = Folder::new();
    let server = folder.start(|_| {});
    let back_up = || folder.command().args(["--back-up", "copy.db"]).output();
    let copied = back_up().unwrap();
    let told = String::from_utf8(copied.stderr).unwrap();
    assert!(copied.status.success(), "{told}");
    assert!(folder.path("copy.db").metadata().unwrap().len() > 0);
    server.client().get("/api/automation/stats").data();

    let again = back_up().unwrap();
    let told = String::from_utf8(again.stderr).unwrap();
    assert_eq!(again.status.code(), Some(1), "{told}");
    assert!(told.contains("exists"), "{told}");

    let (code, told) = refused(&folder, |command| {
        command.args(["--back-up", "other.db", "--database", "memory:"]);
    });
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("pg_dump"), "{told}");
}
