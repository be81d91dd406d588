//! Implementations that never answer, or fail after a number of calls, for tests.
