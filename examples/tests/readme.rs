//! The README's curl lines work as printed.
#![expect(
    clippy::unwrap_used,
    reason = "clippy knows only the functions that are marked as tests"
)]

mod support;

use std::path::Path;
use std::process::Command;

use support::{Folder, repository_scripts};

/// Returns the README's commands that begin with `curl`, each in one line.
fn curl_commands() -> Vec<String> {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let readme = std::fs::read_to_string(readme).unwrap();
    let blocks = readme
        .split("```console\n")
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap());
    let commands = blocks.flat_map(|block| block.split("$ ").map(str::trim).map(str::to_owned));
    commands
        .filter(|command| command.starts_with("curl "))
        .collect()
}

#[test]
fn the_curl_lines_work_as_printed() {
    let folder = Folder::new();
    let server = folder.start(|command| {
        command.arg("--scripts").arg(repository_scripts());
    });
    let (_, port) = server.address().rsplit_once(':').unwrap();
    let commands = curl_commands();
    assert_eq!(commands.len(), 8, "one for each route: {commands:?}");
    for command in commands {
        assert!(command.contains("localhost:3003"), "{command}");
        let command = command.replace("localhost:3003", &format!("localhost:{port}"));
        let shell = format!("{command} --silent --show-error --write-out '\\n%{{http_code}}'");
        let output = Command::new("sh").args(["-c", &shell]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command}: {error}");
        let (body, status) = text.rsplit_once('\n').unwrap();
        assert_eq!(status, "200", "{command}: {body}");
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        let success = body.pointer("/data/success");
        assert!(
            success.is_none_or(|success| success == true),
            "{command}: {body}"
        );
    }
}
