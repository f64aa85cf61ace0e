//! Lets our programs find the libpython that they were built against.

fn main() {
    // Without it the loader takes whatever libpython the system has, which may be another version.
    pyo3_build_config::add_libpython_rpath_link_args();
}
