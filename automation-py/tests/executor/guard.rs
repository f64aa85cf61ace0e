//! What a run may not do to its host.

use automation_core::Reason;
use automation_core::executor::Ending;

use crate::support::{Case, executor, failure, run, stdout};

#[tokio::test]
async fn smoke() {
    println!("{}", stdout("import os\nos.write(1, b'x')\nprint('y')\nimport subprocess\nsubprocess.run(['echo','hi'])\nprint('z')\nos.system('echo sys')\n").await);
    println!("{:?}", run("import os\nos._exit(3)\n").await);
    let _ = (Case::new(""), executor(), Reason::Exception, Ending::Completed, failure);
}
