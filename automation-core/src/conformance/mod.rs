//! The suites that every [`Storage`](crate::Storage) and [`Executor`](crate::Executor) must pass, and a storage
//! that fails on purpose. Not a stable interface: promises are added as they are found.

pub mod executor;
pub mod fault;
pub mod storage;
