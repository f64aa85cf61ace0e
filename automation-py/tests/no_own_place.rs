//! Where the system refuses threads a working directory of their own, as container profiles may.

#![cfg(target_os = "linux")]
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test's helpers fail like a test"
)]
#![expect(unsafe_code, reason = "a seccomp filter has no safe form")]

#[path = "executor/support.rs"]
#[expect(dead_code, reason = "shared with the executor's tests")]
mod support;
#[path = "executor/tested.rs"]
mod tested;

use automation_core::Executor;
use automation_py::PythonExecutor;

use self::tested::{Tested, executor};
use crate::support::{Case, failure};

/// Makes `unshare` fail with EPERM on this thread and those that it starts.
fn refuse_unshare() {
    let number = u32::try_from(libc::SYS_unshare).unwrap();
    let statement = |code: u32, jt, jf, k| libc::sock_filter {
        code: code as u16,
        jt,
        jf,
        k,
    };
    let refused = libc::SECCOMP_RET_ERRNO | libc::EPERM.cast_unsigned();
    let mut filter = [
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, number),
        statement(libc::BPF_RET | libc::BPF_K, 0, 0, refused),
        statement(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog {
        len: 4,
        filter: filter.as_mut_ptr(),
    };
    // SAFETY: a program of four valid statements, which the kernel copies.
    let done = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        libc::prctl(
            libc::PR_SET_SECCOMP,
            libc::SECCOMP_MODE_FILTER,
            &raw const program,
        )
    };
    assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
}

#[tokio::test]
async fn a_change_is_refused_and_health_says_so() {
    refuse_unshare();
    let executor = PythonExecutor::builder().workers(2).build().unwrap();
    let here = std::env::current_dir().unwrap();
    for call in ["os.chdir('/')", "os.fchdir(os.open('/', 0))", "os.umask(0)"] {
        let outcome = Case::new(&format!("import os\n{call}\n"))
            .run(&executor)
            .await;
        let (_, message) = failure(&outcome);
        assert!(
            message.contains("is refused inside a run: it would change the whole process (Operation not permitted"),
            "{call}: {message}"
        );
        assert_eq!(std::env::current_dir().unwrap(), here);
    }
    let source = "import os, subprocess\nsubprocess.run(['pwd'], cwd='/')\nif not os.fork():\n    os.chdir('/')\n    os._exit(0)\nprint(os.wait()[1])";
    let outcome = Case::new(source).run(&executor).await;
    assert_eq!(outcome.output.stdout.text, "/\n0\n", "{outcome:?}");
    let health = executor.health().await;
    let said = health.details["working_directory"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(
        said.starts_with("the process's, runs may not change it: Operation not permitted"),
        "{said}"
    );
}
