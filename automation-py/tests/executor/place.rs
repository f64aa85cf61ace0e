//! Working directory and umask: each run's own.

use crate::Tested;
use crate::support::{Case, executor, stdout};

fn one_worker() -> Tested {
    Tested::builder().workers(1).build().unwrap()
}

#[tokio::test]
async fn the_host_and_the_next_run_stay_where_they_were() {
    let here = std::env::current_dir().unwrap();
    let executor = one_worker();
    for change in ["os.chdir('/')", "os.fchdir(os.open('/', os.O_RDONLY))"] {
        let source =
            format!("import os\n{change}\nold = os.umask(0o777)\nprint(os.getcwd(), oct(old))");
        let outcome = Case::new(&source).run(&executor).await;
        let changed = outcome.output.stdout.text;
        assert!(changed.starts_with("/ 0o"), "{changed}");
        let source =
            "import os\numask = os.umask(0)\nos.umask(umask)\nprint(os.getcwd(), oct(umask))";
        let outcome = Case::new(source).run(&executor).await;
        let expected = format!("{} {}", here.display(), &changed[2..]);
        assert_eq!(outcome.output.stdout.text, expected);
        assert_eq!(std::env::current_dir().unwrap(), here);
    }
}

#[tokio::test]
async fn runs_at_the_same_time_are_in_different_places() {
    let executor = executor();
    let run = |folder: &str| {
        let source = format!(
            "import os, time\nos.chdir('{folder}')\ntime.sleep(0.2)\nprint(os.getcwd(), os.path.abspath('x'))"
        );
        Case::new(&source).run(&executor)
    };
    let (usr, root) = tokio::join!(run("/usr"), run("/"));
    assert_eq!(usr.output.stdout.text, "/usr /usr/x\n");
    assert_eq!(root.output.stdout.text, "/ /x\n");
}

#[tokio::test]
async fn threads_and_children_are_where_their_run_is() {
    let source = r#"
import os, subprocess, threading
os.chdir('/usr')
os.umask(0o027)
def show():
    print(os.getcwd(), subprocess.check_output('pwd; umask', shell=True).split())
thread = threading.Thread(target=show)
thread.start()
thread.join()
def move():
    os.chdir('/')
thread = threading.Thread(target=move)
thread.start()
thread.join()
print(os.getcwd())
print(open(os.path.join('etc', 'passwd')).readable())
"#;
    assert_eq!(stdout(source).await, "/usr [b'/usr', b'0027']\n/\nTrue\n");
}

#[tokio::test]
async fn signals_that_a_run_blocks_are_taken_again() {
    let executor = one_worker();
    let source = "import signal\nprint(signal.SIGUSR2 in signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2]))";
    for _ in 0..2 {
        let outcome = Case::new(source).run(&executor).await;
        assert_eq!(outcome.output.stdout.text, "False\n");
    }
}
