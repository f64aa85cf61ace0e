use super::Script;

#[test]
fn a_script_without_a_block_is_run_by_name_only_and_takes_nothing() {
    let script = Script::parse("hello.py", b"print('{}')\n").unwrap();
    assert_eq!(script.name(), "hello.py");
    assert_eq!(script.metadata().category, None);
    assert!(script.parameters().types().is_empty());
}
