//! The bundled server: reads its variables, builds the engine, serves it, and ends in good order.
//!
//! Run it with `cargo run -p automation-examples --bin automation-server`; `--help` lists every variable.

mod config;
mod logging;
mod run;
mod signals;
mod variables;

use std::path::Path;

use config::Config;
use variables::Values;

/// What `main` ends with when a variable has a wrong value.
const EXIT_WRONG_VALUE: i32 = 2;
/// What `main` ends with when the server could not start, or not end in good order.
const EXIT_FAILED: i32 = 1;

fn main() {
    let flags = variables::given_flags(&variables::command().get_matches());
    let code = match read_config(flags) {
        Ok(config) => start(config),
        Err(sentences) => {
            complain(&sentences);
            EXIT_WRONG_VALUE
        }
    };
    end(code)
}

fn read_config(flags: std::collections::HashMap<String, String>) -> Result<Config, Vec<String>> {
    let file = variables::read_file(Path::new(".env")).map_err(|sentence| vec![sentence])?;
    // Names and values that are not UTF-8 can be nothing of ours.
    let texts = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    Config::read(&Values {
        flags,
        environment: texts.collect(),
        file,
    })
}

fn start(config: Config) -> i32 {
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(&[format!("the runtime could not be started: {error}")]);
            return EXIT_FAILED;
        }
    };
    let result = runtime.block_on(run::run(config));
    // A thread that no means can stop would hold a runtime that is dropped.
    std::mem::forget(runtime);
    match result {
        Ok(code) => code,
        Err(sentence) => {
            complain(&[sentence]);
            EXIT_FAILED
        }
    }
}

#[expect(
    clippy::print_stderr,
    reason = "there may be no log yet, and the person who starts the server looks here"
)]
fn complain(sentences: &[String]) {
    for sentence in sentences {
        eprintln!("automation-server: {sentence}");
    }
}

/// Ends the process without finalising Python: a script's thread that still runs would hold it, or crash in it.
#[expect(
    clippy::exit,
    clippy::disallowed_methods,
    reason = "this is the program and not a library"
)]
fn end(code: i32) -> ! {
    std::process::exit(code)
}
