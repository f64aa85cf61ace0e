//! Connections that do nothing leave scripts the files that they need.

mod support;

use std::net::TcpStream;

use serde_json::json;
use support::Folder;

const OPENING: &str = r#"# /// script
# [tool.automation]
# description = "Opens files"
# ///
import json
files = [open("/dev/null") for _ in range(120)]
print(json.dumps({"opened": len(files)}))
"#;

fn opens_files_beside_idle_connections(limits: &str, connections: usize) {
    let folder = Folder::new();
    folder.write("scripts/opening.py", OPENING);
    let server = folder.start(|command| *command = folder.with_open_files(limits));
    let idle: Vec<_> = (0..connections)
        .map_while(|_| TcpStream::connect(server.address()).ok())
        .collect();
    let answer = server
        .client()
        .post("manual", &json!({"script_name": "opening.py"}));
    assert_eq!(
        answer.data()["parsed_output"],
        json!({"opened": 120}),
        "{limits}: {answer:?}"
    );
    drop(idle);
}

#[test]
fn a_hard_limit_is_shared() {
    opens_files_beside_idle_connections("ulimit -n 320", 400);
}

#[test]
fn a_soft_limit_is_raised() {
    opens_files_beside_idle_connections("ulimit -S -n 128", 200);
}
