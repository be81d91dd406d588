//! Broker and store in this process.
