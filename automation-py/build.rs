//! Finds the interpreter: its cfg flags, an rpath to its library for our tests, and its path as the default.

fn main() {
    pyo3_build_config::use_pyo3_cfgs();
    // Without it the loader picks whatever libpython the system has, which may be another version.
    pyo3_build_config::add_libpython_rpath_link_args();
    if let Some(executable) = pyo3_build_config::get().executable() {
        println!("cargo:rustc-env=AUTOMATION_BUILD_PYTHON={executable}");
    }
}
