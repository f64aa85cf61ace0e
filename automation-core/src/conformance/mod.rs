//! The suites that every [`Storage`](crate::Storage) and [`Executor`](crate::Executor) must pass.

pub mod storage;
