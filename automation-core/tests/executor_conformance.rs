//! The executor's promises, kept by functions.

use std::sync::Arc;

use automation_core::conformance::executor::stand_in;
use automation_core::executor_conformance;

executor_conformance!(function, Arc::new(stand_in()));
