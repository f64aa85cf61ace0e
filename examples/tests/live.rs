//! Runs that are asked for without waiting, followed and cancelled, in the real server with real Python.
#![expect(
    clippy::unwrap_used,
    reason = "clippy knows only the functions that are marked as tests"
)]

mod support;

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use support::{Client, Folder, Server};

const TALKS: &str = r#"
import time
from automation import ctx
ctx.log("begins")
ctx.progress(0.5, "half")
while not ctx.cancelled:
    time.sleep(0.005)
"#;

const SHORT: &str = r#"
import sys
from automation import ctx
ctx.log("one")
print("for people")
print("trouble", file=sys.stderr)
print('{"done": true}')
"#;

fn start(folder: &Folder) -> Server {
    folder.write("scripts/talks.py", TALKS);
    folder.write("scripts/short.py", SHORT);
    folder.start(|_| {})
}

/// Asks for a run and does not wait; returns its path.
fn ask(client: &Client, script: &str) -> String {
    let answer = client.post("manual?wait=0", &json!({ "script_name": script }));
    assert_eq!(answer.status, 202, "{answer:?}");
    let id = answer.body["data"]["automation_id"].as_str().unwrap();
    format!("/api/automation/executions/{id}")
}

/// A stream of events, line by line.
fn follow(server: &Server, place: &str, last: &str) -> BufReader<TcpStream> {
    let mut stream = TcpStream::connect(server.address()).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    let request =
        format!("GET {place}/events HTTP/1.1\r\nhost: localhost\r\nlast-event-id: {last}\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    BufReader::new(stream)
}

/// Returns the next event's name and data; `None` at the end.
fn next(stream: &mut BufReader<TcpStream>) -> Option<(String, Value)> {
    let (mut line, mut name) = (String::new(), None);
    while stream.read_line(&mut line).unwrap() > 0 {
        if let Some(event) = line.strip_prefix("event: ") {
            name = Some(event.trim().to_owned());
        }
        if let Some(data) = line.strip_prefix("data: ") {
            return name.map(|name| (name, serde_json::from_str(data).unwrap()));
        }
        line.clear();
    }
    None
}

#[test]
fn a_run_is_followed_and_cancelled() {
    let folder = Folder::new();
    let server = start(&folder);
    let client = server.client();
    let place = ask(&client, "talks.py");
    let mut stream = follow(&server, &place, "0");
    let mut names = Vec::new();
    while names.last().is_none_or(|name| name != "progress") {
        names.push(next(&mut stream).unwrap().0);
    }
    assert_eq!(names[names.len() - 2..], ["log", "progress"], "{names:?}");
    let cancelled = client.post_to(&format!("{place}/cancel"), &json!({}));
    assert_eq!(cancelled.data()["status"], "cancelled");
    let rest: Vec<_> = std::iter::from_fn(|| next(&mut stream)).take(3).collect();
    let names: Vec<_> = rest.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["status", "result", "end"]);
    assert_eq!(rest[2].1["status"], "cancelled");
}

#[test]
fn a_run_that_is_over_is_told_from_the_database_also_after_a_restart() {
    let folder = Folder::new();
    let server = start(&folder);
    let place = ask(&server.client(), "short.py");
    let told = |server: &Server, last: &str| -> Vec<String> {
        let mut stream = follow(server, &place, last);
        let mut names = Vec::new();
        while names.last().is_none_or(|name| name != "end") {
            names.push(next(&mut stream).unwrap().0);
        }
        names.retain(|name| name != "status");
        names
    };
    assert_eq!(told(&server, "0"), ["log", "result", "end"]);
    server.signal(Signal::TERM);
    server.wait(Duration::from_secs(30));
    let server = start(&folder);
    assert_eq!(told(&server, "0"), ["log", "result", "end"]);
    assert_eq!(told(&server, "1"), ["result", "end"]);
    let client = server.client();
    assert_eq!(
        client.get(&place).data()["parsed_output"],
        json!({"done": true})
    );
    assert_eq!(
        client.text(&format!("{place}/output?stream=stderr")),
        "trouble\n"
    );
    assert!(
        client
            .text(&format!("{place}/output"))
            .starts_with("for people\n")
    );
}

#[test]
fn an_open_stream_does_not_hold_up_the_servers_end() {
    let folder = Folder::new();
    let server = start(&folder);
    let place = ask(&server.client(), "short.py");
    let mut stream = follow(&server, &place, "0");
    assert!(next(&mut stream).is_some());
    server.signal(Signal::TERM);
    let (status, _) = server.wait(Duration::from_secs(20));
    assert!(status.success(), "{status}");
}
