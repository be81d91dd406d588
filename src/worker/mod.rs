pub mod channels;
pub mod mailbox;
