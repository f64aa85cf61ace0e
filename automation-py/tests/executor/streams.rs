//! What scripts write and read.

use crate::support::stdout;

#[tokio::test]
async fn print_is_captured() {
    assert_eq!(stdout("print('a', 1, sep='-')").await, "a-1\n");
}
